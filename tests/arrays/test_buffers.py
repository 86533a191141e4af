"""Blocks read one after another into the same memory."""

from __future__ import annotations

import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import zarr

from normcli.arrays.buffers import BlockBuffer, BufferPool
from normcli.arrays.joined import JoinedSource
from normcli.arrays.opening import open_source
from normcli.arrays.stream import NpyStreamSource
from normcli.domain.grid import Grid

VALUES = np.arange(9 * 7 * 10, dtype="f4").reshape(9, 7, 10)


def made(folder, kind):
    path = folder / f"x.{kind.split('-')[0]}"
    name = str(path)
    if kind == "npy-fortran":
        np.save(path, np.asfortranarray(VALUES))
    elif kind == "npy-big":
        np.save(path, VALUES.astype(">f4"))
    elif kind == "npz":
        np.savez_compressed(path, a=VALUES)
        name += "/a"
    elif kind == "zarr":
        zarr.create_array(path, data=VALUES, chunks=(2, 7, 5), overwrite=True)
    elif kind.startswith("h5"):
        options = {
            "h5-run": {},
            "h5-chunks": {"chunks": (2, 7, 5), "compression": "gzip", "shuffle": True},
            "h5-library": {"chunks": (2, 7, 5), "scaleoffset": 2},
        }[kind]
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=VALUES, **options)
    else:
        np.save(path, VALUES)
    return open_source(name)


@pytest.mark.parametrize(
    "kind",
    ["npy", "npy-fortran", "npy-big", "npz", "zarr", "h5-run", "h5-chunks", "h5-library"],
)
def test_each_block_is_its_own_until_the_next(tmp_path, kind):
    source = made(tmp_path, kind)
    joined = JoinedSource([source, made(tmp_path, kind)], 0)
    doubled = np.concatenate([VALUES, VALUES])
    buffer = BlockBuffer()
    for shape in ((2, 7, 10), (9, 3, 4), (4, 7, 5), (1, 1, 1)):
        for part in Grid(doubled.shape, shape):
            got = joined.read(part, buffer)
            assert got.dtype == np.dtype("f4")
            assert got.flags.writeable
            assert got.flags.c_contiguous or got.flags.f_contiguous
            np.testing.assert_array_equal(got, doubled[part.slices])
    kept = [(part, joined.read(part)) for part in Grid(doubled.shape, (2, 7, 10))]
    for part, got in kept:  # without a buffer, every array lasts
        np.testing.assert_array_equal(got, doubled[part.slices])


@pytest.mark.parametrize("kind", ["npy", "npy-fortran", "h5-run", "h5-chunks", "h5-library"])
def test_memory_is_used_again(tmp_path, kind):
    source = made(tmp_path, kind)
    buffer = BlockBuffer()
    parts = list(Grid(VALUES.shape, (3, 7, 10)))
    places = {source.read(part, buffer).__array_interface__["data"][0] for part in parts}
    assert len(places) == 1


def test_a_pipe_reads_into_the_buffer():
    file = io.BytesIO()
    np.save(file, VALUES)
    file.seek(0)
    source = NpyStreamSource(file)
    buffer = BlockBuffer()
    for part in Grid(VALUES.shape, (2, 7, 10)):
        np.testing.assert_array_equal(source.read(part, buffer), VALUES[part.slices])


def test_no_two_threads_have_one_buffer():
    pool = BufferPool()
    meet = threading.Barrier(4)

    def work(number):
        for _ in range(50):
            with pool.lend() as buffer:
                mine = buffer.array((100,), np.dtype("i8"))
                mine[...] = number
                meet.wait(30)
                assert (mine == number).all()
                meet.wait(30)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))


def test_a_pool_keeps_no_more_than_was_lent_at_once_and_pickles_as_empty():
    pool = BufferPool()
    with pool.lend() as first, pool.lend() as second:
        assert first is not second
    with pool.lend() as again:
        assert again is first or again is second
        assert pickle.loads(pickle.dumps(pool)).__dict__ == {"_free": []}
    pool.clear()
    with pool.lend() as new:
        assert new is not first and new is not second  # noqa: PT018
