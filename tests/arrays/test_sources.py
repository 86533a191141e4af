"""What every source promises, held by each of them."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from normcli.domain.grid import Grid

from .samples import SHAPE, SOURCES, block, hide_zarrs, stream, whole

BLOCKS = [
    whole(SHAPE),
    block((0, 0, 0), (1, 6, 10)),
    block((12, 0, 0), (13, 6, 10)),
    block((3, 2, 4), (9, 5, 7)),
    block((0, 0, 9), (13, 6, 10)),
    block((4, 1, 0), (11, 2, 10)),
    block((4, 5, 9), (5, 6, 10)),
    block((4, 0, 0), (4, 6, 10)),
]


# Zarr is held to it with zarrs, where installed, and with zarr-python's own pipeline.
VARIANTS = [(name, False) for name in SOURCES]
VARIANTS += [(name, True) for name in SOURCES if name.startswith("zarr")]


@pytest.fixture(params=VARIANTS, ids=lambda v: f"{v[0]}-zarr-python" if v[1] else v[0])
def made(request, tmp_path, monkeypatch):
    name, own_pipeline = request.param
    if own_pipeline:
        hide_zarrs(monkeypatch)
    source, values = SOURCES[name](tmp_path)
    yield source, values
    source.close()


class TestEverySource:
    def test_info_tells_shape_and_type(self, made):
        source, values = made
        assert source.info.shape == values.shape
        assert source.info.dtype.newbyteorder("=") == values.dtype

    @pytest.mark.parametrize("part", BLOCKS, ids=str)
    def test_block_is_the_slice(self, made, part):
        source, values = made
        got = source.read(part)
        assert got.dtype == values.dtype
        assert got.dtype.isnative
        assert got.flags.c_contiguous or got.flags.f_contiguous
        assert got.flags.writeable
        np.testing.assert_array_equal(got, values[part.slices])

    def test_blocks_belong_to_the_caller(self, made):
        source, values = made
        source.read(whole(SHAPE))[...] = 0
        np.testing.assert_array_equal(source.read(whole(SHAPE)), values)

    def test_survives_pickling_with_open_handles(self, made):
        source, values = made
        source.read(BLOCKS[1])
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.read(BLOCKS[3]), values[BLOCKS[3].slices])
        copy.close()

    def test_threads(self, made):
        source, values = made
        parts = list(Grid(SHAPE, (2, 4, 3))) * 3
        with ThreadPoolExecutor(6) as pool:
            for part, got in zip(parts, pool.map(source.read, parts), strict=True):
                np.testing.assert_array_equal(got, values[part.slices])

    def test_reads_again_after_close(self, made):
        source, values = made
        source.read(BLOCKS[1])
        source.close()
        np.testing.assert_array_equal(source.read(BLOCKS[2]), values[BLOCKS[2].slices])

    def test_identity_is_stable_and_tells_where(self, made):
        source, _ = made
        assert source.identity() == pickle.loads(pickle.dumps(source)).identity()
        for entry in source.identity():
            assert set(entry) == {"path", "array", "size", "mtime_ns", "fingerprint"}


def test_another_process_opens_its_own_handle(tmp_path):
    for make in SOURCES.values():
        source, values = make(tmp_path)
        source.read(BLOCKS[1])
        context = multiprocessing.get_context("spawn")
        if make.__name__ not in ("npy_f", "hdf5_gzip", "zarr_sharded"):
            continue
        with context.Pool(1) as pool:
            np.testing.assert_array_equal(
                pool.apply(source.read, (BLOCKS[3],)), values[3:9, 2:5, 4:7]
            )


class TestStream:
    def test_blocks_in_order(self, tmp_path):
        source, values = stream(tmp_path)
        for part in Grid(SHAPE, (4, 6, 10)):
            np.testing.assert_array_equal(source.read(part), values[part.slices])

    @pytest.mark.parametrize("part", [BLOCKS[2], BLOCKS[4]], ids=str)
    def test_out_of_order_is_a_bug(self, tmp_path, part):
        with pytest.raises(RuntimeError, match="out of order"):
            stream(tmp_path)[0].read(part)


@pytest.mark.parametrize("shape", [(), (0, 3), (5,)], ids=str)
def test_odd_shapes(tmp_path, shape):
    import h5py
    import zarr

    from normcli.arrays.opening import open_source

    values = np.arange(np.prod(shape, dtype=int), dtype="f8").reshape(shape) + 1
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", x=values)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = values
    zarr.create_array(tmp_path / "x.zarr", data=values)
    for name in ("x.npy", "x.npz", "x.h5", "x.zarr"):
        source = open_source(str(tmp_path / name))
        got = source.read(whole(shape))
        assert got.shape == shape
        np.testing.assert_array_equal(got, values)


def test_large_gaps_are_skipped_and_small_ones_read_over(tmp_path):
    values = np.arange(300 * 40 * 700, dtype="f4").reshape(300, 40, 700)
    np.save(tmp_path / "x.npy", values)
    from normcli.arrays.opening import open_source

    source = open_source(str(tmp_path / "x.npy"))
    for part in (
        block((0, 0, 5), (300, 40, 6)),
        block((10, 3, 100), (290, 4, 650)),
        block((0, 39, 0), (300, 40, 700)),
        block((7, 0, 699), (8, 40, 700)),
    ):
        np.testing.assert_array_equal(source.read(part), values[part.slices])
