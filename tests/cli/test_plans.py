"""The plan that --dry-run and -v show, and a budget that is too small."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np

from tests.cli.terminal import SAMPLES, assert_told, call, run


def test_a_dry_run_tells_all_and_writes_nothing(folder: Path):
    ended = run("apply", SAMPLES / "patches.zarr", "-o", "y.zarr", "--dry-run", cwd=folder)
    assert (ended.code, ended.out) == (0, b"")
    text = ended.err
    assert "passes   2 (two passes: the statistics belong to the whole dataset)" in text
    assert re.search(
        r"pass 1   measuring: \d+ blocks? of [\dx]+ \(.+\), 192 KiB read, 0 B written", text
    )
    assert re.search(
        r"pass 2   normalizing: \d+ blocks? of [\dx]+ \(.+\), 192 KiB from memory, 768 KiB written",
        text,
    )
    assert re.search(r"memory   peak [\d.]+ [KM]iB of [\d.]+ [KMGT]iB \(\d+ workers?, stat", text)
    assert re.search(r"kernels  (numpy|numba)", text)
    assert os.listdir(folder) == ["x.npy"]


def test_the_plan_as_json(folder: Path):
    ended = call(
        "apply", SAMPLES / "patches.zarr", "-o", "-", "--dry-run", "--json", "--mode=layer"
    )
    plan = json.loads(ended.out)["plan"]
    assert [work["kind"] for work in plan["passes"]] == ["fused"]
    assert plan["bytes_read"] == 64 * 3 * 32 * 32
    assert plan["bytes_written"] == 4 * plan["bytes_read"]
    assert 0 < plan["peak_memory"] <= plan["memory_budget"]
    assert plan["reason"]
    assert set(plan["passes"][0]) == {
        "kind", "blocks", "block_shape", "block_memory", "bytes_read", "bytes_written", "reason",
    }  # fmt: skip


def test_the_hint_of_a_small_budget_works(folder: Path):
    np.save("wide.npy", np.random.default_rng(0).normal(size=(64, 10_000)).astype(np.float32))
    for arguments in (
        ["fit", "wide.npy", "-o", "s.npz"],
        ["apply", "wide.npy", "-o", "y.npy", "--mode", "layer"],
        ["apply", "wide.npy", "-o", "y.zarr"],
    ):
        refused = call(*arguments, "--memory", "100KiB", "-j", "2")
        assert_told(refused, 2, "the memory budget is 100 KiB")
        hint = re.search(r"Hint: .*--memory (\S+)", refused.err)
        assert hint is not None, refused.err
        followed = call(*arguments, "--memory", hint.group(1), "-j", "2", "-q")
        assert (followed.code, followed.err) == (0, "")


def test_a_budget_is_heard_where_it_is_tight(folder: Path):
    np.save("long.npy", np.random.default_rng(0).normal(size=(200_000, 20)))  # 32 MB
    ended = call("fit", "long.npy", "--json", "--memory", "10MiB", "-q")
    document = json.loads(ended.out)
    assert document["plan"]["passes"][0]["blocks"] > 3
    assert document["plan"]["peak_memory"] <= 10 << 20
    np.testing.assert_allclose(
        document["statistics"]["arrays"]["mean"]["data"], np.load("long.npy").mean(0), atol=1e-12
    )
