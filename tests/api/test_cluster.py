"""A dask scheduler and two worker processes: the same bits, and the same errors, as threads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import normcli
from normcli.api.applying import apply_array
from normcli.api.fitting import fit_arrays
from normcli.api.options import ApplyOptions, FitOptions, RunOptions
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, InputError, TransientError, UsageError
from tests.examples import pairs

from .stores import load, store
from .wide_cases import LAYOUT, exactly, floats, integers

pytest.importorskip("distributed")

X = np.random.default_rng(21).normal(8, 2, (60, 6, 20, 25)).astype("f4")
# More blocks than one, in spite of so small an array.
CHUNKS = (4, 6, 10, 25)
TIGHT = "4400KiB"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[str]:
    """The scheduler file of a running cluster of two worker processes."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    started = [[*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]]
    worker = ["worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
    started += [dask + worker + ["--local-directory", str(folder)]] * 2
    processes = []
    log = open(folder / "log.txt", "w")  # noqa: SIM115
    try:
        for command in started:
            processes.append(
                subprocess.Popen(
                    [*command, "--scheduler-file", str(file)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                )
            )
            deadline = time.monotonic() + 60
            while not file.exists() or not file.stat().st_size:
                assert time.monotonic() < deadline, "the scheduler did not start"
                assert processes[0].poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.05)
        _wait_for_workers(str(file))
        yield str(file)
    finally:
        # They have nothing to lose; a worker that is asked to end looks for its scheduler for 20 s.
        for process in reversed(processes):
            process.kill()
            process.wait()
        log.close()


def _wait_for_workers(file: str) -> None:
    from distributed import Client

    with Client(scheduler_file=file, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        assert len(client.nthreads()) == 2


def test_there_is_more_than_one_block(tmp_path):
    for storage in ("npy", "zarr3", "h5-chunked"):
        name = store(tmp_path, "x", X, storage, CHUNKS)
        run = RunOptions(memory=TIGHT, dry_run=True)
        for mode in ("batch", "instance"):
            fit = fit_arrays([name], None, FitOptions(mode=mode, layout="NCHW"), run, Observer())
            options = ApplyOptions(mode=mode, layout="NCHW")
            apply = apply_array(name, str(tmp_path / "y.npy"), options, run, Observer())
            assert len(fit.plan.passes[0].grid) > 2
            assert len(apply.plan.passes[-1].grid) > 2


def statistics(fitted: normcli.FittedStatistics) -> list[bytes]:
    moments, moving = fitted.statistics.moments, fitted.statistics.moving
    parts = [moments.count, moments.mean, moments.m2, moments.minimum, moments.maximum]
    if moving is not None:
        parts += [moving.mean, moving.variance]
    return [part.tobytes() for part in parts]


FITS = {
    "batch": {"mode": "batch"},
    "instance": {"mode": "instance"},
    "moving": {"mode": "batch", "momentum": 0.9, "batch_size": 4},
    "cumulative": {"mode": "batch", "momentum": "cumulative", "batch_size": (3, 1, 5)},
}


@pytest.mark.parametrize(("kind", "storage"), pairs(FITS, ["npy", "zarr3", "h5-chunked"]))
def test_fit_gives_the_same_bits(cluster, tmp_path, storage, kind):
    name = store(tmp_path, "x", X, storage, CHUNKS)
    options = {"layout": "NCHW", "memory": TIGHT, **FITS[kind]}
    here = normcli.fit(name, tmp_path / "here.json", workers=2, **options)
    there = normcli.fit(name, tmp_path / "there.json", scheduler_file=cluster, **options)
    assert statistics(here) == statistics(there)
    assert statistics(normcli.read_statistics(tmp_path / "there.json")) == statistics(here)


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({"mode": "batch"}, ".npy"),
        ({"mode": "instance"}, ".zarr"),
        ({"training": True, "batch_size": 8}, ".npy"),
        pytest.param({"mode": "batch"}, ".zarr", marks=pytest.mark.slow),
        pytest.param({"mode": "instance"}, ".npy", marks=pytest.mark.slow),
        pytest.param({"training": True, "batch_size": 8}, ".zarr", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_apply_gives_the_same_bits(cluster, tmp_path, output, options):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "memory": TIGHT, **options}
    normcli.apply(name, tmp_path / f"here{output}", workers=2, **options)
    report = normcli.apply(name, tmp_path / f"there{output}", scheduler_file=cluster, **options)
    here, there = load(tmp_path / f"here{output}"), load(tmp_path / f"there{output}")
    assert here.tobytes() == there.tobytes()
    assert report.written_mean == pytest.approx(0, abs=1e-6)
    assert not list(tmp_path.glob(".*"))


MINMAX, MAXABS = {"method": "minmax", "range": (-1, 2)}, {"method": "maxabs"}


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        (MINMAX, "batch"),
        (MAXABS, "instance"),
        pytest.param(MINMAX, "instance", marks=pytest.mark.slow),
        pytest.param(MAXABS, "batch", marks=pytest.mark.slow),
    ],
)
def test_extremes_give_the_same_bits(cluster, tmp_path, method, mode):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "mode": mode, "memory": TIGHT, **method}
    normcli.apply(name, tmp_path / "here.npy", workers=2, **options)
    normcli.apply(name, tmp_path / "there.npy", scheduler_file=cluster, **options)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    low, high = (f(X.astype("f8"), (0, 2, 3) if mode == "batch" else (2, 3), keepdims=True)
                 for f in (np.min, np.max))  # fmt: skip
    want = X / np.maximum(abs(low), abs(high))
    if method["method"] == "minmax":
        want = (X - low) / (high - low) * 3 - 1
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), want, rtol=1e-6, atol=3e-7)


ROBUST, LP = {"method": "robust"}, {"method": "lp", "p": 3}


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        (ROBUST, "batch"),
        (LP, "instance"),
        pytest.param(ROBUST, "instance", marks=pytest.mark.slow),
        pytest.param(LP, "batch", marks=pytest.mark.slow),
    ],
)
def test_quantiles_and_norms_give_the_same_bits(cluster, tmp_path, method, mode):
    pytest.importorskip("datasketches")
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "mode": mode, "memory": "64MiB", **method}
    normcli.apply(name, tmp_path / "here.npy", workers=2, **options)
    normcli.apply(name, tmp_path / "there.npy", scheduler_file=cluster, **options)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    axes, wide = ((0, 2, 3) if mode == "batch" else (2, 3)), X.astype("f8")
    want = wide / (np.abs(wide) ** 3).sum(axes, keepdims=True) ** (1 / 3)
    if method["method"] == "robust":
        low, center, high = np.quantile(wide, [0.25, 0.5, 0.75], axis=axes, keepdims=True)
        want = (wide - center) / (high - low)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), want, rtol=1e-6, atol=3e-7)
    here = normcli.fit(name, tmp_path / "h.npz", workers=2, **options).statistics.moments
    there = normcli.fit(
        name, tmp_path / "t.npz", scheduler_file=cluster, **options
    ).statistics.moments
    for array in here.names():
        assert getattr(here, array).tobytes() == getattr(there, array).tobytes()


@pytest.mark.parametrize("method", [ROBUST, LP], ids=["robust", "lp"])
def test_what_float64_does_not_hold_by_methods_of_their_own(cluster, tmp_path, method):
    pytest.importorskip("datasketches")
    x = integers("i8") // 2 if method is ROBUST else floats() / 64
    name = store(tmp_path, "x", x, "zarr3", (3, 4, 7))
    options = {"layout": LAYOUT, **method}
    normcli.apply(name, tmp_path / "here.npy", workers=2, **options)
    normcli.apply(name, tmp_path / "there.npy", scheduler_file=cluster, **options)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    here = normcli.fit(name, workers=2, **options).statistics.moments
    there = normcli.fit(name, scheduler_file=cluster, **options).statistics.moments
    assert here.names() == there.names()
    for array in here.names():
        assert getattr(here, array).tobytes() == getattr(there, array).tobytes()


def test_apply_with_moving_statistics_and_its_inverse(cluster, tmp_path):
    name = store(tmp_path, "x", X, "npy")
    normcli.fit(
        name,
        tmp_path / "s.npz",
        layout="NCHW",
        momentum=0.5,
        batch_size=4,
        scheduler_file=cluster,
    )
    normcli.apply(name, tmp_path / "here.npy", stats=tmp_path / "s.npz")
    normcli.apply(name, tmp_path / "there.npy", stats=tmp_path / "s.npz", scheduler_file=cluster)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    normcli.apply(
        tmp_path / "there.npy",
        tmp_path / "back.npy",
        stats=tmp_path / "there.npy.stats.json",
        inverse=True,
        scheduler_file=cluster,
    )
    np.testing.assert_allclose(np.load(tmp_path / "back.npy"), X, rtol=1e-5)


def test_names_relative_to_the_current_folder(cluster, tmp_path, monkeypatch):
    store(tmp_path, "x", X, "npy")
    monkeypatch.chdir(tmp_path)
    normcli.apply("x.npy", "y.zarr", layout="NCHW", mode="instance", scheduler_file=cluster)
    normcli.apply("x.npy", "z.npy", layout="NCHW", mode="instance")
    assert load(Path("y.zarr")).tobytes() == np.load("z.npy").tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"chunks": CHUNKS}, marks=pytest.mark.slow),
        {"chunks": CHUNKS, "compression": "gzip", "shuffle": True},
        pytest.param({"chunks": CHUNKS, "compression": "lzf"}, marks=pytest.mark.slow),
    ],
    ids=["contiguous", "chunked", "gzip", "lzf"],
)
def test_workers_write_hdf5(cluster, tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=X, **options)
    common = {"layout": "NCHW", "mode": "instance", "memory": TIGHT, "stats_out": False}
    normcli.apply(tmp_path / "x.h5", tmp_path / "y.h5", scheduler_file=cluster, **common)
    normcli.apply(tmp_path / "x.h5", tmp_path / "z.h5", workers=2, **common)
    assert (tmp_path / "y.h5").read_bytes() == (tmp_path / "z.h5").read_bytes()
    with h5py.File(tmp_path / "y.h5") as file:
        np.testing.assert_allclose(
            file["data"][...].mean(axis=(2, 3)), np.zeros(X.shape[:2]), atol=1e-5
        )
    manifests = [tmp_path / f"{name}.h5.manifest.jsonl" for name in "yz"]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()
    assert {*tmp_path.iterdir()} == {*manifests, *(tmp_path / f"{name}.h5" for name in "xyz")}


def test_an_error_of_a_worker_reaches_the_user(cluster, tmp_path):
    x = X.copy()
    x[17, 2, 3, 4] = np.inf
    name = store(tmp_path, "x", x, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "mode": "instance", "nonfinite": "error", "memory": TIGHT}
    found = []
    for where in ({"workers": 2}, *[{"scheduler_file": cluster}] * 5):
        with pytest.raises(DataPolicyError) as caught:
            normcli.apply(name, tmp_path / "y.zarr", **options, **where)
        found.append((caught.value.message, caught.value.hint))
        assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert set(found) == {found[0]}


def test_an_unreadable_chunk_reaches_the_user(cluster, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=X, chunks=CHUNKS, compression="gzip")
        chunk = data.id.get_chunk_info(5)
        offset, size = chunk.byte_offset, chunk.size
    with open(tmp_path / "x.h5", "r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * size)
    with pytest.raises(InputError, match=r"x\.h5"):
        normcli.fit(tmp_path / "x.h5", layout="NCHW", scheduler_file=cluster)


def test_the_cluster_outlives_an_error(cluster, tmp_path):
    name = store(tmp_path, "x", X, "npy")
    with pytest.raises(InputError):
        normcli.fit(tmp_path / "gone.npy", layout="NCHW", scheduler_file=cluster)
    assert normcli.fit(name, layout="NCHW", scheduler_file=cluster).count.sum() == X.size


def test_no_scheduler_answers(tmp_path):
    name = store(tmp_path, "x", X, "npy")
    with pytest.raises(UsageError, match="exclude"):
        normcli.fit(name, layout="NCHW", scheduler="tcp://127.0.0.1:1", scheduler_file="f")
    with pytest.raises((TransientError, UsageError, InputError)) as caught:
        normcli.fit(name, layout="NCHW", scheduler="nonsense://127.0.0.1:1")
    assert caught.value.hint


@pytest.mark.parametrize("solver", ["exact", "sgd"])
def test_the_same_scale_and_bias_as_on_threads(cluster, tmp_path, solver):
    x = np.random.default_rng(3).integers(0, 99, (3300, 1000), np.uint8)  # four blocks
    names = store(tmp_path, "x", x), store(tmp_path, "t", x // 3 + 5, "zarr3", (700, 1000))
    options = {"layout": "NC", "solver": solver, "mode": "batch"}
    if solver == "sgd":
        options |= {"batch_size": 500, "epochs": 2}
    threads = normcli.learn(*names, **options)
    found = normcli.learn(*names, tmp_path / "a.npz", scheduler_file=cluster, **options)
    assert len(found.plan.passes[-1].grid) > 3
    for name in ("scale", "bias"):
        ours, theirs = (getattr(o.affine, name) for o in (found, threads))
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", ["integers", "floats"])
@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_data_beyond_float64(cluster, tmp_path, mode, kind):
    x = integers("u8") if kind == "integers" else floats()
    name = store(tmp_path, "x", x, "zarr3", (1, 4, 30))
    options = {"layout": LAYOUT, "epsilon": 0.0, "mode": mode, "memory": "4200KiB"}
    normcli.apply(name, tmp_path / "here.npy", workers=2, **options)
    normcli.apply(name, tmp_path / "there.npy", scheduler_file=cluster, **options)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    size = np.abs(want := exactly(x, mode)).max((0, 2), keepdims=True)
    assert np.all(np.abs(np.load(tmp_path / "there.npy") - want) <= 1e-14 * size)
    here = normcli.fit(name, tmp_path / "h.json", workers=2, **options)
    there = normcli.fit(name, tmp_path / "t.json", scheduler_file=cluster, **options)
    ours, theirs = here.statistics.moments, there.statistics.moments
    for array in ours.names():
        assert getattr(ours, array).tobytes() == getattr(theirs, array).tobytes()
    if kind == "integers":
        del options["memory"]
        affine = normcli.learn(name, name, scheduler_file=cluster, **options).affine
        deviation = x.astype(object) - x.astype(object).sum((0, 2), keepdims=True) // (12 * 30)
        if mode == "batch":
            want = deviation.astype("f8").std((0, 2))
            np.testing.assert_allclose(affine.scale, want, rtol=1e-12)
