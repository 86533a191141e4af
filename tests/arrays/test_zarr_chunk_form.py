"""Chunks that we encode ourselves are those that zarr stores; what we decode is whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
)

from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.checksums import crc32c
from normcli.arrays.rules import STRICT
from normcli.arrays.zarr_chunk_files import ChunkFiles
from normcli.arrays.zarr_chunk_form import ChunkForm
from normcli.arrays.zarr_layout import CONFIG
from normcli.arrays.zarr_open import open_checked
from normcli.arrays.zarr_writer import BlockWriter
from normcli.domain.grid import Block, Grid

SHAPE, CHUNKS, BLOCKS = (7, 5, 6), (3, 5, 4), (6, 5, 4)
CRC = Crc32cCodec()
FORMAT_3 = {
    "none": {"compressors": None},
    "crc32c": {"compressors": (CRC,)},
    "blosc": {"compressors": (BloscCodec(cname="lz4", clevel=5), CRC)},
    "bitshuffle": {"compressors": (BloscCodec(cname="zstd", shuffle="bitshuffle"),)},
    "noshuffle": {"compressors": (BloscCodec(shuffle="noshuffle", blocksize=64), CRC)},
    "gzip": {"compressors": (GzipCodec(level=3), CRC)},
    "zstd": {"compressors": (ZstdCodec(level=2, checksum=True),)},
    "both": {"compressors": (BloscCodec(cname="lz4"), ZstdCodec(), CRC)},
    "transposed": {"filters": (TransposeCodec(order=(2, 0, 1)),), "compressors": (GzipCodec(),)},
    "twice transposed": {
        "filters": (TransposeCodec(order=(2, 0, 1)), TransposeCodec(order=(1, 0, 2))),
        "compressors": None,
    },
    "big endian": {"serializer": BytesCodec(endian="big"), "compressors": (ZstdCodec(), CRC)},
    "keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}
FORMAT_2 = {
    "none": {"compressors": None},
    "blosc": {"compressors": numcodecs.Blosc("lz4", 5, 1)},
    "zlib": {"compressors": numcodecs.Zlib(2)},
    "lzma": {"compressors": numcodecs.LZMA(preset=1)},
    "delta": {"filters": [numcodecs.Delta("f4")], "compressors": numcodecs.BZ2(1)},
    "order F": {"order": "F", "compressors": numcodecs.Zstd(1)},
    "order F, plain": {"order": "F", "compressors": None},
    "slashes": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
}
LEFT_TO_ZARR = {
    "shards": {"shards": (6, 5, 8)},
    "checksum inside": {"compressors": (CRC, GzipCodec())},
    "blosc of bytes": {"compressors": (BloscCodec(typesize=1, shuffle="noshuffle"),)},
}


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    chunks = (p for p in found if p.name not in ("zarr.json", ".zarray", ".zattrs"))
    return {str(path.relative_to(root)): path.read_bytes() for path in chunks}


def written(tmp_path: Path, values: np.ndarray, **options):
    """What zarr stores, what the writer stores, and whether it encoded that itself."""
    given = {"shape": SHAPE, "chunks": CHUNKS, "dtype": values.dtype, "config": CONFIG, **options}
    zarr.create_array(tmp_path / "theirs", **given)[...] = values
    array = zarr.create_array(tmp_path / "ours", **given)
    writer = BlockWriter(tmp_path / "ours", "")
    block_shape = array.shards or BLOCKS
    grid = Grid(SHAPE, block_shape)
    parts = []
    for block in map(grid.block, range(len(grid))):
        parts += writer.write(block, values[block.slices])
    ours = files(tmp_path / "ours")
    assert {part.key: part.nbytes for part in parts} == {k: len(v) for k, v in ours.items()}
    return files(tmp_path / "theirs"), ours, ChunkForm.of(array) is not None


def some(dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 99, SHAPE).astype(dtype)


CASES = [
    *itertools.product([3], FORMAT_3.items()),
    *itertools.product([2], FORMAT_2.items()),
]


@pytest.mark.parametrize(("version", "case"), CASES, ids=lambda case: str(case)[:24])
def test_the_bytes_are_those_of_zarr(tmp_path, version, case):
    theirs, ours, own = written(tmp_path, some("f4"), zarr_format=version, **case[1])
    assert own
    assert ours == theirs


@pytest.mark.parametrize("case", LEFT_TO_ZARR)
def test_what_we_do_not_know_is_left_to_zarr(tmp_path, case):
    theirs, ours, own = written(tmp_path, some("f4"), **LEFT_TO_ZARR[case])
    assert not own
    assert ours == theirs


@pytest.mark.parametrize("dtype", ["i1", "u2", "f2", "f8", "?", ">f4"])
@pytest.mark.parametrize("version", [2, 3])
def test_any_type(tmp_path, version, dtype):
    options = {"zarr_format": version}
    if version == 3 and dtype == ">f4":
        options["serializer"] = BytesCodec(endian="big")
    theirs, ours, own = written(tmp_path, some(dtype), **options)
    assert own
    assert ours == theirs


@pytest.mark.parametrize(("version", "fill"), [(2, None), (2, -1.5), (3, -1.5), (3, float("nan"))])
def test_a_chunk_at_the_edge_goes_on_with_the_fill_value(tmp_path, version, fill):
    theirs, ours, _ = written(
        tmp_path, some("f4"), zarr_format=version, fill_value=fill, compressors=None
    )
    assert ours == theirs


def test_values_that_do_not_lie_in_order(tmp_path):
    values = np.asfortranarray(some("f4"))
    theirs, ours, _ = written(tmp_path, values)
    assert ours == theirs


def test_no_dimension_at_all(tmp_path):
    zarr.create_array(tmp_path / "theirs", shape=(), dtype="f4", config=CONFIG)[...] = 3
    zarr.create_array(tmp_path / "ours", shape=(), dtype="f4", config=CONFIG)
    BlockWriter(tmp_path / "ours", "").write(Grid((), ()).block(0), np.float32(3).reshape(()))
    assert files(tmp_path / "ours") == files(tmp_path / "theirs") != {}


DECODED = {
    (3, "none"): FORMAT_3["none"],
    (3, "crc32c"): FORMAT_3["crc32c"],
    (3, "blosc"): FORMAT_3["blosc"],
    (3, "gzip"): FORMAT_3["gzip"],
    (3, "zstd"): FORMAT_3["zstd"],
    (2, "lz4"): {"compressors": numcodecs.LZ4()},
    (2, "zlib"): FORMAT_2["zlib"],
    (2, "lzma"): FORMAT_2["lzma"],
}


def form_of(version: int, options: dict) -> ChunkForm:
    given = {"shape": SHAPE, "chunks": CHUNKS, "dtype": "f4", "zarr_format": version}
    form = ChunkForm.of(zarr.create_array({}, **given, **options))
    assert form is not None
    assert form.decodes
    return form


def stored_of(form: ChunkForm, values: np.ndarray) -> bytes:
    stored = bytes(form.encode(values))
    return stored + crc32c(stored).to_bytes(4, "little") if form.checksum else stored


@pytest.mark.parametrize("case", DECODED, ids=str)
def test_decoding_undoes_encoding(case):
    form = form_of(case[0], DECODED[case])
    values = np.random.default_rng(1).normal(size=CHUNKS).astype("f4")
    room = np.full(CHUNKS, np.nan, "f4")
    form.decode(memoryview(stored_of(form, values)), room)
    np.testing.assert_array_equal(room, values)


@pytest.mark.parametrize("rows", [2, 4])
@pytest.mark.parametrize("case", DECODED, ids=str)
def test_a_chunk_of_another_size_is_not_sound(case, rows):
    form = form_of(case[0], DECODED[case])
    stored = stored_of(form, np.ones((rows, *CHUNKS[1:]), "f4"))
    with pytest.raises((ValueError, RuntimeError)):
        form.decode(memoryview(stored), np.empty(CHUNKS, "f4"))


def test_a_chunk_with_another_checksum_is_not_sound():
    form = form_of(3, FORMAT_3["crc32c"])
    stored = bytearray(stored_of(form, np.ones(CHUNKS, "f4")))
    stored[5] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        form.decode(memoryview(stored), np.empty(CHUNKS, "f4"))


@pytest.mark.parametrize("case", [*FORMAT_3, "delta"])
def test_which_blocks_are_read_from_their_files(tmp_path, case):
    options = FORMAT_3.get(case) or {**FORMAT_2[case], "zarr_format": 2}
    values = some("f4")
    given = {"shape": SHAPE, "chunks": CHUNKS, "dtype": "f4", **options}
    array = zarr.create_array(tmp_path / "x.zarr", **given)
    array[...] = values
    _, document = open_checked(tmp_path / "x.zarr", "", "x", STRICT)
    files = ChunkFiles.of(tmp_path / "x.zarr", document, array)
    if "transposed" in case or case in ("both", "delta"):
        assert files is None
        return
    assert files is not None
    assert not files.has_whole(Block(0, (0, 0, 0), (2, 5, 4)))
    assert not files.has_whole(Block(0, (1, 0, 0), (3, 5, 4)))
    buffer = BlockBuffer()
    grid = Grid(SHAPE, BLOCKS)
    for block in map(grid.block, range(len(grid))):
        assert files.has_whole(block)
        got = files.read(block, buffer)
        np.testing.assert_array_equal(got, values[block.slices])
        assert np.shares_memory(got, buffer.array((1,), np.dtype("u1")))


def test_a_missing_chunk_is_somebody_elses(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=SHAPE, chunks=CHUNKS, dtype="f4")
    _, document = open_checked(tmp_path / "x.zarr", "", "x", STRICT)
    files = ChunkFiles.of(tmp_path / "x.zarr", document, array)
    with pytest.raises(FileNotFoundError):
        files.read(Grid(SHAPE, SHAPE).block(0), None)
