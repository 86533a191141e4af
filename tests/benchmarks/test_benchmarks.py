"""The benchmarks run once, tiny, so that they cannot rot."""

import gc

import pytest

from tests.benchmarks.__main__ import run
from tests.benchmarks.files import Files
from tests.benchmarks.harness import Scale, table
from tests.benchmarks.profile_jobs import KINDS, jobs, shares

# Those of kernels compile them for many types, which takes most of a minute.
OF_KERNELS = {"K1", "K2", "K3", "K4", "K5"}
OF_RUNS = {*("F1", "F2", "F3", "A1", "A2", "A3", "A4"), *("S0", "S1", "G1", "G2", "R10")}


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param({"F1", "A1"}, id="one of each command"),
        pytest.param(OF_RUNS, marks=pytest.mark.slow, id="runs"),
        pytest.param(OF_KERNELS, marks=pytest.mark.slow, id="kernels"),
    ],
)
def test_every_benchmark_runs(tmp_path, figures):
    (tmp_path / "out").mkdir()
    # Garbage is collected before each timing, and what other tests hold would be looked through.
    gc.freeze()
    rows = list(run(Scale(tmp_path, 4 << 20, 1), figures, tiny=True))
    assert {row.key for row in rows} == figures
    assert table(rows).count("\n") == len(rows) + 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_safety_costs(tmp_path, figures):
    """Other tests share the cores and the disk here, so the goal is held against a ratio by half.

    ``make bench`` measures it alone.
    """
    (tmp_path / "out").mkdir()
    for row in run(Scale(tmp_path, 64 << 20, 4), {"R10"}, tiny=True):
        if "one sync at the end" in row.peer_name:
            name = "npy_ratio" if "NPY" in row.work else "zarr_ratio"
            figures.least("R10", **{name: row.ratio})
            assert row.ratio > 0.5, row


@pytest.mark.slow
def test_the_profile_knows_what_the_jobs_do(tmp_path):
    """Each job is seen doing what it must do; a renamed function would go unseen."""
    (tmp_path / "out").mkdir()
    found = {}
    for name, job in jobs(Scale(tmp_path, 24 << 20, 1)):
        found[name] = shares(job, Files(Scale(tmp_path, 0, 1)).clear, 4)
        assert set(found[name]) <= set(KINDS)
        assert abs(sum(found[name].values()) - 1) < 1e-9
    assert found["`fit`, NPY"].keys() & {"reading bytes", "measuring and transforming"}
    packed = found["`apply --stats`, gzip HDF5"]
    assert min(packed["decoding"], packed["encoding"]) > 0.05
    assert found["`apply --stats`, blosc-lz4 Zarr"].keys() >= {"encoding", "writing"}
