"""Several inputs to apply: each into the folder under its own name, a bad one leaves the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.terminal import assert_told, call, drafts, run, zscore


@pytest.fixture
def inputs(folder: Path) -> Path:
    values = np.random.default_rng(2).normal(size=(9, 4))
    Path("in").mkdir()
    np.save("in/a.npy", values)
    np.save("in/b.npy", values * 2)
    with h5py.File("in/c.h5", "w") as file:
        file["group/x"] = values * 3
    np.save("in/bad.npy", values.astype(complex))
    return folder


def test_each_under_its_own_name(inputs: Path):
    ended = run("apply", "in/a.npy", "in/b.npy", "in/c.h5/group/x", "-o", "out", cwd=inputs)
    assert ended.code == 0, ended.err
    expected = zscore(np.load("in/a.npy"), [0])
    np.testing.assert_allclose(np.load("out/a.npy"), expected, rtol=1e-4)
    with h5py.File("out/c.h5") as file:
        np.testing.assert_allclose(file["group/x"][...], expected, rtol=1e-4)
    ends = ("", ".manifest.jsonl", ".stats.json")
    assert sorted(os.listdir("out")) == [
        f"{name}{end}" for name in ("a.npy", "b.npy", "c.h5") for end in ends
    ]
    assert "normcli: 3 of 3 inputs done\n" in ended.err
    assert "  in/c.h5/group/x  done: out/c.h5/group/x" in ended.err


def test_a_bad_one_leaves_the_others(inputs: Path):
    ended = call("apply", "in/a.npy", "in/bad.npy", "in/no.npy", "in/b.npy", "-o", "out", "--json")
    assert ended.code == 8
    assert "in/bad.npy  failed (exit code 3)" in ended.err
    assert "in/a.npy    done: out/a.npy" in ended.err
    assert "2 of 4 inputs done" in ended.err
    assert "Traceback" not in ended.err
    documents = json.loads(ended.out)
    assert [d["input"] for d in documents] == ["in/a.npy", "in/bad.npy", "in/no.npy", "in/b.npy"]
    assert [d.get("code", 0) for d in documents] == [0, 3, 3, 0]
    assert documents[3]["report"]["output"] == documents[3]["output"] == "out/b.npy"
    assert {p for p in os.listdir("out") if p.endswith(".npy")} == {"a.npy", "b.npy"}
    assert drafts(inputs) == []


def test_all_failed_is_the_code_of_all(inputs: Path):
    ended = call("apply", "in/bad.npy", "in/no.npy", "-o", "out", "-q")
    assert ended.code == 3
    assert ended.err.count("normcli: error: ") == 2
    assert call("apply", "in/bad.npy", "in/a.npy", "-o", "out", "--epsilon=-1", "-q").code == 8


def test_what_cannot_be_told_apart_is_refused(inputs: Path):
    Path("more").mkdir()
    np.save("more/a.npy", np.ones((2, 3)))
    assert_told(call("apply", "in/a.npy", "more/a.npy", "-o", "out"), 2, "out/a.npy")
    assert_told(call("apply", "in/a.npy", "-", "-o", "out"), 2, "Standard input")
    several = ["apply", "in/a.npy", "in/b.npy"]
    assert_told(call(*several, "-o", "out.npy"), 2, "out.npy names an array", "out.npy/")
    assert_told(call(*several, "-o", "-"), 2, "standard output")
    assert_told(call(*several, "-o", "x.npy/"), 2, "a file")
    assert_told(call(*several, "-o", "out", "--stats-out", "s.json"), 2, "--stats-out")
    assert sorted(os.listdir()) == ["in", "more", "x.npy"]


def test_one_input_into_a_folder(inputs: Path):
    Path("results.v2").mkdir()
    assert call("apply", "in/a.npy", "-o", "results.v2", "-q").code == 0
    assert call("apply", "in/b.npy", "-o", "new/", "-q").code == 0
    assert Path("results.v2/a.npy").exists()
    assert Path("new/b.npy").exists()


def test_a_dry_run_makes_no_folder(inputs: Path):
    ended = call("apply", "in/a.npy", "in/b.npy", "-o", "out", "--dry-run")
    assert ended.code == 0
    assert ended.err.count("plan (dry run) for in/") == 2
    assert "  in/b.npy  planned: out/b.npy" in ended.err
    assert not Path("out").exists()
    documents = json.loads(call("apply", "in/a.npy", "-o", "out/", "--dry-run", "--json").out)
    assert documents[0]["output"] == "out/a.npy"


def test_existing_outputs_are_kept_one_by_one(inputs: Path):
    Path("out").mkdir()
    Path("out/a.npy").write_bytes(b"mine")
    ended = call("apply", "in/a.npy", "in/b.npy", "-o", "out", "-q")
    assert ended.code == 8
    assert Path("out/a.npy").read_bytes() == b"mine"
    assert Path("out/b.npy").exists()
