"""normcli merge and fit --part as commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import assert_told, call, npy, run

X = np.random.default_rng(5).normal(2, 3, (40, 3, 8)).astype("f4")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The names of three parts, made by an environment variable as in a job array."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    names = []
    for number in (1, 2, 3):
        names.append(f"p{number}.json")
        ended = call("fit", "x.npy", "-o", names[-1], "-q", NORMCLI_FIT_PART=f"{number}/3")
        assert ended.code == 0, ended.err
    return names


def test_merge_reports_as_fit_does(parts):
    ended = call("merge", *parts, "-o", "s.json", "--json")
    assert ended.code == 0
    report = json.loads(ended.text)["report"]
    assert report["command"] == "merge"
    assert report["inputs"] == parts
    assert (report["stats"], report["groups"], report["count"]) == ("s.json", 3, X.size)
    assert "normcli: merge done" in ended.err
    whole = json.loads(call("fit", "x.npy", "--json", "-q").text)
    assert set(report) == set(whole["report"])
    fitted = whole["statistics"]["arrays"]["mean"]["data"]
    merged = json.loads(Path("s.json").read_text())["arrays"]["mean"]["data"]
    np.testing.assert_allclose(merged, fitted, rtol=1e-14)


def test_without_an_output_the_statistics_go_to_stdout(parts):
    ended = call("merge", *parts, "--json", "-q")
    assert ended.err == ""
    document = json.loads(ended.text)["statistics"]
    assert "part" not in document["source"]
    np.testing.assert_allclose(
        document["arrays"]["mean"]["data"], X.mean((0, 2), dtype="f8"), rtol=1e-13
    )
    assert_told(call("merge", *parts), 2, "needs an output")
    assert_told(call("merge", *parts, "-o", "-"), 2, "standard output")


def test_dry_run_checks_and_writes_nothing(parts, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    ended = call("merge", *parts, "-o", "s.json", "--dry-run")
    assert ended.code == 0
    assert "nothing was written" in ended.err
    assert_told(call("merge", *parts[:2], "-o", "s.json", "--dry-run"), 3, "missing: 3.")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_overwrite_and_quiet(parts):
    assert call("merge", *parts, "-o", "s.json", "-q").err == ""
    assert_told(call("merge", *parts, "-o", "s.json"), 2, "exists")
    assert call("merge", *parts, "-o", "s.json", "--overwrite").code == 0


def test_missing_parts_are_named_as_sbatch_takes_them(parts):
    ended = call("merge", "p2.json", "-o", "s.json")
    assert_told(ended, 3, "2 of the 3 parts of x.npy missing: 1,3.", "--array=1,3")


def test_a_part_is_refused_by_apply_and_shown_by_inspect(parts):
    assert_told(call("apply", "x.npy", "-o", "y.npy", "--stats", "p1.json"), 3, "normcli merge")
    assert "1 of 3; normcli merge joins them" in call("inspect", "p1.json").text


def test_bad_parts(parts):
    assert_told(call("fit", "x.npy", "-o", "s.json", "--part", "4/3"), 2, "--part 4/3")
    piped = run("fit", "-", "-o", "s.json", "--part", "1/3", stdin=npy(X))
    assert_told(piped, 2, "pipe", "--part")


def test_a_dry_run_of_a_part_shows_its_boxes(parts):
    ended = call("fit", "x.npy", "--part", "2/7", "--dry-run", "--json", "-q")
    plan = json.loads(ended.text)["plan"]
    assert len(plan["passes"]) >= 1
    assert 0 < plan["bytes_read"] < X.nbytes / 3
    ended = call("fit", "x.npy", "--part", "2000/2000", "--dry-run")
    assert ended.code == 0, ended.err
