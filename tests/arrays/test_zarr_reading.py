"""The same numbers, and the same refusals, whichever codec pipeline decodes Zarr chunks."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import shutil
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from normcli.arrays import zarr_calls, zarr_rust
from normcli.arrays.opening import open_source
from normcli.arrays.zarr_chunk_files import ChunkFiles
from normcli.domain.grid import Grid
from normcli.errors import InputError, SafetyError
from tests.examples import steps

from .samples import block, hide_zarrs, whole

SHAPE = (24, 10)
VALUES = np.random.default_rng(3).normal(size=SHAPE).astype("f4")
STORED: dict = {"shape": SHAPE, "chunks": (5, 4), "dtype": "f4"}
LZ4 = BloscCodec(cname="lz4")
PARTS = [whole(SHAPE), block((5, 4), (10, 8)), block((3, 1), (17, 10)), block((20, 8), SHAPE)]


def is_fast(source) -> bool:
    return source._handle.get()._fast is not None


def make(path: Path, **options) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numcodecs in format 3 are not in its specification
        zarr.create_array(path, **{**STORED, **options})[...] = VALUES
    return path


def chunk_files(path: Path) -> list[Path]:
    documents = {"zarr.json", ".zarray", ".zattrs"}
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in documents)


@pytest.fixture(params=["own", "zarr-python", "zarrs"])
def pipeline(request, monkeypatch):
    """Who reads: our own loop over chunks where it can, or who it leaves them to."""
    if request.param != "own":
        monkeypatch.setattr(ChunkFiles, "has_whole", lambda self, block: False)
    if request.param == "zarrs":
        pytest.importorskip("zarrs")
    else:
        hide_zarrs(monkeypatch)
    return request.param


def numcodec(name: str, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(zarr.codecs.numcodecs, name)(**options)


# What the arrays are stored with, and whether zarrs takes them.
ENCODINGS: dict[str, tuple[dict, bool]] = {
    "plain": ({"compressors": None}, True),
    "lz4": ({"compressors": LZ4}, True),
    "zstd and crc": ({"compressors": [ZstdCodec(), Crc32cCodec()]}, True),
    "gzip": ({"compressors": GzipCodec()}, False),
    "transposed": ({"filters": [TransposeCodec(order=(1, 0))]}, True),
    "fill nan": ({"fill_value": np.nan}, True),
    "fill -inf": ({"fill_value": -np.inf}, True),
    "big-endian 3": (
        {"serializer": {"name": "bytes", "configuration": {"endian": "big"}}},
        True,
    ),
    "sharded": ({"chunks": (3, 5), "shards": (12, 10), "compressors": LZ4}, True),
    "sharded, index first": (
        {"chunks": (3, 5), "shards": {"shape": (12, 10), "index_location": "start"}},
        True,
    ),
    "format 2": ({"zarr_format": 2, "compressors": numcodecs.Blosc()}, True),
    "format 2, fill 0.1": ({"zarr_format": 2, "fill_value": 0.1}, True),
    "format 2, no fill": ({"zarr_format": 2, "fill_value": None}, True),
    "format 2, slashes": (
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        True,
    ),
    "format 2, Fortran": ({"zarr_format": 2, "order": "F"}, False),
    "format 2, big-endian": ({"zarr_format": 2, "dtype": ">f4"}, False),
    "format 2, lz4 alone": ({"zarr_format": 2, "compressors": numcodecs.LZ4()}, False),
    "numcodecs zlib": ({"compressors": [numcodec("Zlib")]}, False),
}


class TestAllPipelines:
    @pytest.mark.parametrize("name", ENCODINGS)
    def test_numbers(self, tmp_path, pipeline, name):
        options, taken = ENCODINGS[name]
        path = make(tmp_path / "x.zarr", **options)
        fill = options.get("fill_value", 0)
        expected = VALUES.copy()
        if "shards" not in options:
            (path / "c/1/1").unlink(missing_ok=True)
            (path / "1.1").unlink(missing_ok=True)
            (path / "1/1").unlink(missing_ok=True)
            expected[5:10, 4:8] = 0 if fill is None else fill
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = open_source(str(path))
            assert is_fast(source) == (taken and pipeline == "zarrs")
            for part in PARTS:
                got = source.read(part)
                assert got.dtype == np.dtype("f4")
                assert got.flags.writeable
                assert got.flags.owndata
                np.testing.assert_array_equal(got, expected[part.slices])

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("dtype", ["f2", "f8", "i1", "u8", "?", ">i2"])
    @pytest.mark.parametrize("shape", [(7, 5), (), (0, 3)], ids=str)
    def test_types_and_odd_shapes(self, tmp_path, pipeline, version, dtype, shape):
        values = (np.random.default_rng(1).normal(size=shape) * 100).astype(dtype)
        options = {"zarr_format": version, "chunks": (3, 2)[: len(shape)], "fill_value": 1}
        array = zarr.create_array(tmp_path / "x.zarr", shape=shape, dtype=dtype, **options)
        if values.size:
            array[...] = values
        source = open_source(str(tmp_path / "x.zarr"))
        assert is_fast(source) == (pipeline == "zarrs" and not (version == 2 and dtype == ">i2"))
        got = source.read(whole(shape))
        assert got.dtype == values.dtype.newbyteorder("=")
        assert got.shape == shape
        np.testing.assert_array_equal(got, values)

    def test_many_threads(self, tmp_path, pipeline):
        source = open_source(str(make(tmp_path / "x.zarr", compressors=LZ4)))
        parts = list(Grid(SHAPE, (5, 4))) * 20
        with ThreadPoolExecutor(8) as pool:
            for part, got in zip(parts, pool.map(source.read, parts), strict=True):
                np.testing.assert_array_equal(got, VALUES[part.slices])

    def test_settings_of_the_process_stay(self, tmp_path, pipeline):
        before = pickle.dumps(zarr.config.config)
        path = make(tmp_path / "x.zarr")
        open_source(str(path)).read(whole(SHAPE))
        assert pickle.dumps(zarr.config.config) == before
        other = zarr.open_array(path).async_array.codec_pipeline
        assert type(other).__module__ == "zarr.core.codec_pipeline"

    def test_reads_inside_a_running_loop(self, tmp_path, pipeline):
        source = open_source(str(make(tmp_path / "x.zarr")))

        async def cell() -> np.ndarray:
            return source.read(whole(SHAPE))

        np.testing.assert_array_equal(asyncio.run(cell()), VALUES)

    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_reads_in_another_process(self, tmp_path, pipeline, method):
        source = open_source(str(make(tmp_path / "x.zarr", compressors=LZ4)))
        np.testing.assert_array_equal(source.read(whole(SHAPE)), VALUES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, from 3.12 on
            with multiprocessing.get_context(method).Pool(1) as pool:
                got = pool.apply_async(source.read, (PARTS[2],)).get(timeout=60)
        np.testing.assert_array_equal(got, VALUES[PARTS[2].slices])


def a_folder(chunk: Path) -> None:
    chunk.unlink()
    chunk.mkdir()


def a_file_for_its_folder(chunk: Path) -> None:
    shutil.rmtree(chunk.parent)
    chunk.parent.write_bytes(b"x")


def half(chunk: Path) -> None:
    os.truncate(chunk, chunk.stat().st_size // 2)


def one_byte_less(chunk: Path) -> None:
    os.truncate(chunk, chunk.stat().st_size - 1)


def nothing(chunk: Path) -> None:
    os.truncate(chunk, 0)


def other_bytes(chunk: Path) -> None:
    chunk.write_bytes(b"nonsense" * 20)


def more_bytes(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes() + b"abcdefgh")


DAMAGES = [a_folder, a_file_for_its_folder, half, one_byte_less, nothing, other_bytes, more_bytes]
DAMAGED = ["plain", "lz4", "zstd and crc", "gzip", "format 2", "format 2, lz4 alone", "sharded"]


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            (name, damage)
            for name in DAMAGED
            for damage in DAMAGES
            if damage is not a_file_for_its_folder or "format 2" not in name  # has no folders
        ],
    )
    def test_is_an_error_that_names_the_array(self, tmp_path, pipeline, name, damage):
        path = make(tmp_path / "x.zarr", **ENCODINGS[name][0])
        damage(chunk_files(path)[0])
        if damage in (a_folder, nothing):
            with pytest.raises(
                InputError, match=r"x\.zarr: the chunk c?[/.0]+ is (a folder|empty)"
            ):
                open_source(str(path))
            return
        if name == "sharded" and damage is not a_file_for_its_folder:
            with pytest.raises(InputError, match=r"x\.zarr: the shard c/0/0 is (cut|damaged)"):
                open_source(str(path))
            return
        source = open_source(str(path))
        for part in (whole(SHAPE), block((0, 0), (5, 4)), block((0, 1), (12, 8))):
            with pytest.raises((InputError, SafetyError), match=r"x\.zarr at \(0, \d\).*chunk"):
                source.read(part)

    @pytest.mark.parametrize("name", ["lz4", "zstd and crc", "sharded", "format 2"])
    def test_flipped_bits_are_found_or_harmless(self, tmp_path, pipeline, name):
        """Blosc keeps no checksum: only that nothing crashes is promised there."""
        path = make(tmp_path / "x.zarr", **ENCODINGS[name][0])
        chunk = chunk_files(path)[0]
        content = chunk.read_bytes()
        source = open_source(str(path))
        failed = 0
        for position in range(0, len(content), max(1, len(content) // 60) * steps(3)):
            damaged = bytearray(content)
            damaged[position] ^= 0x5A
            chunk.write_bytes(damaged)
            try:
                got = source.read(whole(SHAPE))
            except (InputError, SafetyError):
                failed += 1
                continue
            assert got.shape == SHAPE
            if "crc" in name:
                np.testing.assert_array_equal(got, VALUES)
        assert failed

    def test_reading_goes_on_after_an_error(self, tmp_path, pipeline):
        """What an error left waiting must not disturb the next read of the same thread."""
        path = make(tmp_path / "x.zarr", compressors=LZ4)
        other_bytes(path / "c/0/0")
        source = open_source(str(path))
        good = block((10, 0), SHAPE)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(10):
                bad = pool.submit(source.read, whole(SHAPE))
                np.testing.assert_array_equal(
                    pool.submit(source.read, good).result(), VALUES[good.slices]
                )
                assert isinstance(bad.exception(), InputError)


class TestThisThread:
    def test_reads_stay_in_the_threads_that_ask(self, tmp_path, monkeypatch):
        """With every core reading, zarr's event loop and thread pool are not used."""
        monkeypatch.setattr(zarr_calls, "_CORES", 1)
        hide_zarrs(monkeypatch)
        # Shards, which our own loop over chunks leaves to zarr.
        path = make(tmp_path / "x.zarr", chunks=(3, 5), shards=(12, 10), compressors=LZ4)
        source = open_source(str(path))
        source.read(whole(SHAPE))

        def refuse(coroutine):
            asyncio.run(coroutine)
            raise AssertionError("handed to another thread")

        monkeypatch.setattr(zarr_calls, "sync", refuse)
        np.testing.assert_array_equal(source.read(whole(SHAPE)), VALUES)
        monkeypatch.setattr(zarr_calls, "_CORES", 8)
        with pytest.raises(InputError, match="handed to another thread"):
            source.read(whole(SHAPE))

    def test_loops_end_with_their_threads(self, tmp_path, monkeypatch):
        monkeypatch.setattr(zarr_calls, "_CORES", 1)
        source = open_source(str(make(tmp_path / "x.zarr", chunks=(3, 5), shards=(12, 10))))

        def read() -> asyncio.AbstractEventLoop:
            source.read(whole(SHAPE))
            return zarr_calls._here.loop.loop

        with ThreadPoolExecutor(1) as pool:
            loop = pool.submit(read).result()
            assert pool.submit(read).result() is loop
            assert not loop.is_closed()
        assert loop.is_closed()


def test_a_forked_child_leaves_zarrs_alone(tmp_path, monkeypatch):
    pytest.importorskip("zarrs")
    path = make(tmp_path / "x.zarr")
    assert is_fast(open_source(str(path)))
    monkeypatch.setattr(zarr_rust, "_forked", True)
    assert not is_fast(open_source(str(path)))


def test_the_test_extra_installs_zarrs():
    """Without it, half of this file would be skipped unseen."""
    if sys.platform.startswith("linux"):
        import zarrs

        assert zarrs.__version__
