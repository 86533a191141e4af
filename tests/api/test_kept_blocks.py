"""A compressed array that fits the budget is decoded once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.api.applying import apply_array
from normcli.api.options import ApplyOptions, RunOptions
from normcli.arrays.hdf5 import Hdf5Source
from normcli.arrays.zarr import ZarrSource
from normcli.engine.events import Observer

X = (np.random.default_rng(5).normal(size=(256, 8, 16, 16)) * 3 + 7).astype("f4")
CHUNKS = (16, 8, 16, 16)
# Of an array of 2 MiB.
AMPLE, TIGHT = "64MiB", "6MiB"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    zarr.create_array(folder / "x.zarr", data=X, chunks=CHUNKS)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=CHUNKS, compression="gzip", compression_opts=1)
    np.save(folder / "x.npy", X)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Elements that were asked of each kind of source."""
    found: dict[str, int] = {}
    for kind in (ZarrSource, Hdf5Source):

        def read(self, block, buffer=None, own=kind.read, name=kind.__name__):
            found[name] = found.get(name, 0) + block.size
            return own(self, block, buffer)

        monkeypatch.setattr(kind, "read", read)
    return found


def run(inputs, folder, name, memory, **options):
    out = folder / f"{memory}.{'h5' if '.h5' in name else 'zarr'}"
    report = normcli.apply(inputs / name, out, layout="NCHW", memory=memory, **options)
    if out.suffix == ".h5":
        with h5py.File(out) as file:
            values = file["data"][...]
    else:
        values = zarr.open_array(out, mode="r")[...]
    statistics = normcli.read_statistics(f"{out}.stats.json")
    return values, statistics.mean, statistics.variance, report


@pytest.mark.parametrize("name", ["x.zarr", "x.h5"])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bits_and_half_the_reads(inputs, tmp_path, reads, name, workers):
    found = {}
    for memory in (AMPLE, TIGHT):
        reads.clear()
        *outcome, report = run(inputs, tmp_path, name, memory, workers=workers)
        passes = 1 if memory == AMPLE else 2
        assert list(reads.values()) == [passes * X.size]
        assert report.bytes_read == passes * X.nbytes
        found[memory] = outcome
    for one, other in zip(found[AMPLE], found[TIGHT], strict=True):
        np.testing.assert_array_equal(one, other)
    mean = X.mean(axis=(0, 2, 3), dtype="f8")
    std = X.std(axis=(0, 2, 3), dtype="f8")
    want = (X - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(found[AMPLE][0], want, rtol=1e-4, atol=1e-5)


def test_what_is_not_chunked_is_read_twice(inputs, tmp_path):
    # Its pages are in the kernel's cache already, without a copy in the program.
    report = normcli.apply(inputs / "x.npy", tmp_path / "y.npy", layout="NCHW", memory=AMPLE)
    assert report.bytes_read == 2 * X.nbytes


@pytest.mark.parametrize("codec", [None, zarr.codecs.BloscCodec(cname="lz4")])
def test_what_decodes_faster_than_memory_grows_is_read_twice(tmp_path, codec):
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=CHUNKS, compressors=codec)
    report = normcli.apply(tmp_path / "x.zarr", tmp_path / "y.zarr", layout="NCHW", memory=AMPLE)
    assert report.bytes_read == 2 * X.nbytes


def test_the_dry_run_counts_what_is_kept(inputs, tmp_path):
    plans = {
        memory: apply_array(
            str(inputs / "x.zarr"),
            str(tmp_path / "y.zarr"),
            ApplyOptions(layout="NCHW"),
            RunOptions(memory=memory << 20, dry_run=True),
            Observer(),
        ).plan
        for memory in (64, 6)
    }
    assert plans[64].kept_memory == X.nbytes
    assert X.nbytes < plans[64].peak_memory <= 64 << 20
    assert plans[6].kept_memory == 0
    assert plans[6].peak_memory <= 6 << 20
