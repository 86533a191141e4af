"""Chunks that are not stored: filled with a warning, left out, or refused; and counted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest
import zarr

import normcli
from normcli.errors import DataPolicyError, UsageError
from tests.cli.terminal import call
from tests.hostile.commands import pooled, statistics

SHAPE, CHUNKS = (60, 30), (10, 6)
VALUES = np.random.default_rng(8).normal(5, 2, SHAPE).astype("f4")
GRID = (6, 5)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/statistics.schema.json").read_text())


def hole(index: tuple[int, int]) -> bool:
    return sum(index) % 3 == 0


HOLES = [index for index in np.ndindex(*GRID) if hole(index)]


def region(index: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, CHUNKS, strict=True))


def gappy_zarr(folder: Path, **options) -> str:
    array = zarr.create_array(
        folder / "x.zarr", shape=SHAPE, chunks=CHUNKS, dtype=VALUES.dtype, fill_value=7, **options
    )
    for index in np.ndindex(*GRID):
        if not hole(index):
            array[region(index)] = VALUES[region(index)]
    return "x.zarr"


def zarr_3(folder: Path) -> str:
    return gappy_zarr(folder)


def zarr_3_by_dots(folder: Path) -> str:
    return gappy_zarr(folder, chunk_key_encoding={"name": "default", "separator": "."})


def zarr_3_named_as_2(folder: Path) -> str:
    return gappy_zarr(folder, chunk_key_encoding={"name": "v2", "separator": "."})


def zarr_2(folder: Path) -> str:
    return gappy_zarr(folder, zarr_format=2)


def zarr_2_by_slashes(folder: Path) -> str:
    encoding = {"name": "v2", "separator": "/"}
    return gappy_zarr(folder, zarr_format=2, chunk_key_encoding=encoding)


def sharded(folder: Path) -> str:
    """Shards of 2 x 5 chunks, which hold only some of them."""
    return gappy_zarr(folder, shards=(20, 30))


def sharded_at_start(folder: Path) -> str:
    codec = zarr.codecs.ShardingCodec(chunk_shape=CHUNKS, index_location="start")
    array = zarr.create_array(
        folder / "x.zarr",
        shape=SHAPE,
        chunks=(20, 30),
        dtype="f4",
        fill_value=7,
        serializer=codec,
        compressors=None,
    )
    for index in np.ndindex(*GRID):
        if not hole(index):
            array[region(index)] = VALUES[region(index)]
    return "x.zarr"


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("a", SHAPE, "f4", chunks=CHUNKS, fillvalue=7)
        for index in np.ndindex(*GRID):
            if not hole(index):
                data[region(index)] = VALUES[region(index)]
    return "x.h5/a"


STORES = (
    zarr_3,
    zarr_3_by_dots,
    zarr_3_named_as_2,
    zarr_2,
    zarr_2_by_slashes,
    sharded,
    sharded_at_start,
    hdf5,
)


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def name(request, tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    return request.param(tmp_path)


def filled() -> np.ndarray:
    values = VALUES.astype(float)
    for index in HOLES:
        values[region(index)] = 7
    return values


def stored() -> np.ndarray:
    values = VALUES.astype(float)
    for index in HOLES:
        values[region(index)] = np.nan
    return values


def test_filled_with_one_warning(name):
    ended = call("fit", name, "-o", "s.json")
    assert ended.code == 0
    warning = f"{len(HOLES)} of 30 chunks are not stored and are read as 7"
    assert ended.err.count(warning) == 1
    assert ended.err.count("warning:") == 1
    assert f"not stored  {len(HOLES)} of 30 chunks" in ended.err
    document = statistics(Path("s.json"))
    jsonschema.validate(document, SCHEMA)
    assert document["source"]["chunks"] == 30
    assert document["source"]["missing_chunks"] == len(HOLES)
    mean, variance, count = pooled(Path("s.json"))
    assert count == VALUES.size
    assert mean == pytest.approx(filled().mean(), rel=1e-12)
    assert variance == pytest.approx(filled().var(), rel=1e-12)


def test_left_out(name):
    """Groups see the stored elements only."""
    ended = call("fit", name, "-o", "s.json", "--missing", "omit")
    assert ended.code == 0, ended
    assert "are not stored and are left out of the statistics" in ended.err
    arrays = statistics(Path("s.json"))["arrays"]
    assert arrays["count"]["data"] == np.isfinite(stored()).sum(axis=0).tolist()
    assert arrays["nonfinite"]["data"] == [0] * SHAPE[1]
    np.testing.assert_allclose(arrays["mean"]["data"], np.nanmean(stored(), axis=0), rtol=1e-12)
    np.testing.assert_allclose(arrays["variance"]["data"], np.nanvar(stored(), axis=0), rtol=1e-12)


def test_refused(name):
    ended = call("fit", name, "-o", "s.json", "--missing", "error")
    assert ended.code == 7
    assert f"{len(HOLES)} of 30 chunks are not stored" in ended.err
    assert not Path("s.json").exists()


@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_applied(name, mode):
    """The output has all elements, normalized by the statistics that were asked for."""
    options = (
        "--missing=omit",
        f"--mode={mode}",
        "--layout=NC" if mode == "batch" else "--layout=CS",
    )
    ended = call("apply", name, "-o", "y.npy", *options, "--json")
    assert ended.code == 0, ended
    report = json.loads(ended.text)["report"]
    assert (report["missing_chunks"], report["chunks"]) == (len(HOLES), 30)
    axis = 0 if mode == "batch" else 1
    known = stored()
    scale = np.sqrt(np.nanvar(known, axis=axis, keepdims=True) + 1e-5)
    expected = (filled() - np.nanmean(known, axis=axis, keepdims=True)) / scale
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=2e-6, atol=2e-6)
    sidecar = statistics(Path("y.npy.stats.json"))
    assert sidecar["source"]["missing_chunks"] == len(HOLES)


def test_joined_with_a_whole_array(name):
    np.save("z.npy", VALUES[:7])
    ended = call("fit", name, "z.npy", "-o", "s.json", "--layout=NC", "--missing=omit")
    assert ended.code == 0, ended
    everything = np.concatenate([stored(), VALUES[:7].astype(float)])
    arrays = statistics(Path("s.json"))["arrays"]
    assert arrays["count"]["data"] == np.isfinite(everything).sum(axis=0).tolist()
    np.testing.assert_allclose(arrays["mean"]["data"], np.nanmean(everything, axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("zarr", "NC"),
        ("hdf5", "CS"),
        pytest.param("zarr", "CS", marks=pytest.mark.slow),
        pytest.param("hdf5", "NC", marks=pytest.mark.slow),
    ],
)
def test_left_out_of_several_blocks(tmp_path, monkeypatch, kind, layout):
    """The blocks of a run cut through rows of chunks, some of which are missing."""
    monkeypatch.chdir(tmp_path)
    shape, chunks = (2300, 4000), (100, 1000)
    values = np.random.default_rng(2).normal(3, 1, shape).astype("f4")
    known = values.astype(float)
    with h5py.File("x.h5", "w") as file:
        array = (
            zarr.create_array("x.zarr", shape=shape, chunks=chunks, dtype="f4")
            if kind == "zarr"
            else file.create_dataset("a", shape, "f4", chunks=chunks)
        )
        for row in range(23):
            for column in range(4):
                place = (
                    slice(row * 100, row * 100 + 100),
                    slice(column * 1000, column * 1000 + 1000),
                )
                if (row * 4 + column) % 5 == 2:
                    known[place] = np.nan
                else:
                    array[place] = values[place]
    name = "x.zarr" if kind == "zarr" else "x.h5/a"
    ended = call("fit", name, "-o", "s.npz", "--missing=omit", f"--layout={layout}", "-j", 2)
    assert ended.code == 0, ended
    found = np.load("s.npz")
    axis = 0 if layout == "NC" else 1
    assert np.array_equal(found["count"], np.isfinite(known).sum(axis=axis))
    np.testing.assert_allclose(found["mean"], np.nanmean(known, axis=axis), rtol=1e-12)
    np.testing.assert_allclose(found["variance"], np.nanvar(known, axis=axis), rtol=1e-12)


def test_moving_statistics_leave_them_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = zarr_3(tmp_path)
    given = ("--momentum=0.9", "--batch-size=10", "--layout=NC")
    ended = call("fit", name, "-o", "s.json", "--missing=omit", *given)
    assert ended.code == 0, ended
    mean = np.zeros(SHAPE[1])
    for begin in range(0, SHAPE[0], 10):
        batch = stored()[begin : begin + 10]
        there = np.isfinite(batch).any(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing
            seen = np.nanmean(batch, axis=0)
        mean = np.where(there, 0.9 * mean + 0.1 * seen, mean)
    got = statistics(Path("s.json"))["arrays"]["moving_mean"]["data"]
    np.testing.assert_allclose(got, mean, rtol=1e-12)


def test_integers_beyond_float64(tmp_path, monkeypatch):
    """What is left out is left out exactly: no value passes through a NaN."""
    monkeypatch.chdir(tmp_path)
    values = np.arange(2**40, 2**40 + 40, dtype="i8").reshape(20, 2)
    array = zarr.create_array("i.zarr", shape=(20, 2), chunks=(5, 2), dtype="i8")
    array[5:15] = values[5:15]
    assert call("fit", "i.zarr", "-o", "s.json", "--missing=omit").code == 0
    arrays = statistics(Path("s.json"))["arrays"]
    assert arrays["count"]["data"] == [10, 10]
    assert arrays["minimum"]["data"] == values[5].astype(float).tolist()
    assert arrays["maximum"]["data"] == values[14].astype(float).tolist()


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_a_claim_needs_a_word(tmp_path, monkeypatch, kind):
    """Under 1 % stored of over a GiB claimed is refused, unless filling was asked for."""
    monkeypatch.chdir(tmp_path)
    if kind == "zarr":
        array = zarr.create_array("x.zarr", shape=(300_000_000,), chunks=(1_000_000,), dtype="f4")
        array[:1_000_000] = 1
        name = "x.zarr"
    else:
        with h5py.File("x.h5", "w") as file:
            data = file.create_dataset("a", (300_000_000,), "f4", chunks=(1_000_000,))
            data[:1_000_000] = 1
        name = "x.h5/a"
    ended = call("fit", name, "-o", "s.json")
    assert ended.code == 7
    assert "0.3 % of chunks exist (1 of 300)" in ended.err
    assert call("fit", name, "-o", "s.json", "--missing=fill", "--dry-run").code == 0
    assert call("fit", name, "-o", "s.json", "--missing=omit", "--layout=N", "-q").code == 0
    assert pooled(Path("s.json")) == (1.0, 0.0, 1_000_000)


def test_a_dataset_that_was_never_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("a", (20, 3), "f4", fillvalue=2)
    ended = call("fit", "x.h5/a", "-o", "s.json")
    assert ended.code == 0
    assert "1 of 1 chunks are not stored and are read as 2.0" in ended.err
    assert call("fit", "x.h5/a", "-o", "t.json", "--missing=error").code == 7


def test_whole_arrays_are_not_spoken_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zarr.create_array("x.zarr", data=VALUES, chunks=CHUNKS)
    zarr.create_array("y.zarr", data=VALUES, chunks=(7, 4), shards=(14, 8))
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("a", data=VALUES, chunks=(7, 4))
        file["b"] = VALUES
    for name in ("x.zarr", "y.zarr", "x.h5/a", "x.h5/b"):
        ended = call("fit", name, "-o", "s.json", "--overwrite", "--missing=error")
        assert ended.code == 0, ended
        assert "warning" not in ended.err


def test_as_functions(tmp_path):
    name = tmp_path / zarr_3(tmp_path)
    fitted = normcli.fit(name, missing="omit")
    assert fitted.count.sum() == np.isfinite(stored()).sum()
    assert fitted.statistics.source.missing_chunks == len(HOLES)
    with pytest.raises(DataPolicyError, match="not stored"):
        normcli.fit(name, missing="error")
    with pytest.raises(UsageError, match="none of fill, omit and error"):
        normcli.fit(name, missing="guess")
