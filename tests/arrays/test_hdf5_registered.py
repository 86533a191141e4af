"""HDF5 datasets compressed by registered filters, held against h5py with the filters themselves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numcodecs.blosc
import numpy as np
import pytest

from normcli.arrays.opening import open_source
from normcli.domain.grid import Block, Grid
from normcli.errors import InputError, SafetyError
from tests.examples import examples, pairs, steps

from .samples import whole
from .test_hdf5_direct import (
    BYTES,
    CHUNKS,
    SHAPE,
    TYPES,
    agree,
    direct,
    put_chunk,
    sample,
    stored_at,
)

plugin = pytest.importorskip("hdf5plugin")
pytest.importorskip("imagecodecs")

FILTERS = {
    "lzf": {"compression": "lzf"},
    "blosc-lz4": plugin.Blosc("lz4", 5, plugin.Blosc.SHUFFLE),
    "blosc-zstd": plugin.Blosc("zstd", 3, plugin.Blosc.BITSHUFFLE),
    "blosc-zlib": plugin.Blosc("zlib", 3, plugin.Blosc.NOSHUFFLE),
    "blosc-blosclz": plugin.Blosc("blosclz", 9, plugin.Blosc.SHUFFLE),
    "lz4": plugin.LZ4(),
    "lz4-blocks": plugin.LZ4(nbytes=128),
    "bitshuffle": plugin.Bitshuffle(cname="none"),
    "bitshuffle-blocks": plugin.Bitshuffle(nelems=64, cname="none"),
    "bitshuffle-lz4": plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-lz4-blocks": plugin.Bitshuffle(nelems=64, cname="lz4"),
    "bitshuffle-zstd": plugin.Bitshuffle(cname="zstd", clevel=3),
    "zstd": plugin.Zstd(clevel=3),
}
# Those whose stored form tells nothing that could be damaged.
REARRANGED = {"bitshuffle", "bitshuffle-blocks"}
# bitshuffle makes no wheels for the newest Python; h5py reads these there.
PACKED = {name for name in FILTERS if name.startswith("bitshuffle")} - REARRANGED
LEFT = set() if importlib.util.find_spec("bitshuffle") else PACKED


def make(folder, values, filters, chunks=CHUNKS, **options):
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, chunks=chunks, **{**FILTERS[filters], **options})
        assert file["a"].id.get_chunk_info(0).filter_mask == 0 or values.size < 100
    return str(path)


def compressible(dtype, shape=SHAPE):
    levels = np.random.default_rng(4).integers(0, 5, shape)
    return (np.sort(levels, axis=None).reshape(shape) * 25).astype(dtype)


class TestReading:
    @pytest.mark.parametrize(("filters", "dtype"), pairs(FILTERS, TYPES))
    def test_every_filter_and_type(self, tmp_path, filters, dtype):
        values = compressible(dtype)
        source = open_source(make(tmp_path, values, filters))
        assert direct(source) is (filters not in LEFT) or filters in REARRANGED
        agree(source, values)
        with h5py.File(tmp_path / "x.h5") as file:
            np.testing.assert_array_equal(source.read(whole(SHAPE)), file["a"][...])

    @pytest.mark.parametrize("filters", sorted(FILTERS))
    def test_with_shuffle_and_checksum(self, tmp_path, filters):
        values = compressible("f4")
        source = open_source(make(tmp_path, values, filters, shuffle=True, fletcher32=True))
        assert direct(source) is (filters not in LEFT)
        agree(source, values)

    @pytest.mark.parametrize("filters", sorted(FILTERS))
    @pytest.mark.parametrize("shape", [(1000,), (3, 70_001), (5, 3)], ids=str)
    def test_other_shapes(self, tmp_path, filters, shape):
        values = compressible("f4", shape)
        chunks = (*shape[:-1], min(shape[-1], 40_001))
        source = open_source(make(tmp_path, values, filters, chunks))
        assert direct(source) is (filters not in LEFT) or filters in REARRANGED
        agree(source, values)

    @pytest.mark.parametrize("filters", sorted(FILTERS))
    def test_unwritten_chunks_and_masked_filters(self, tmp_path, filters):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset(
                "a", SHAPE, "f4", chunks=CHUNKS, fillvalue=7, **FILTERS[filters]
            )
            data[5:9, :, 6:] = 3
            raw = sample("f4", CHUNKS)
            data.id.write_direct_chunk((0, 0, 0), raw.tobytes(), 1)
        with h5py.File(tmp_path / "x.h5") as file:
            values = file["a"][...]
        source = open_source(str(tmp_path / "x.h5"))
        agree(source, values)
        np.testing.assert_array_equal(source.read(whole(SHAPE))[:4, :, :5], raw)

    @pytest.mark.parametrize("packed", ["gzip", "zstd"])
    def test_bitshuffle_before_a_compression(self, tmp_path, packed):
        values = compressible("f4")
        with h5py.File(tmp_path / "x.h5", "w") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(CHUNKS)
            plist.set_filter(32008, h5py.h5z.FLAG_MANDATORY, (0, 0))
            if packed == "gzip":
                plist.set_deflate(4)
            else:
                plist.set_filter(32015, h5py.h5z.FLAG_MANDATORY, (3,))
            space = h5py.h5s.create_simple(SHAPE)
            made = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    def test_blosc_that_only_copies(self, tmp_path):
        values = compressible("f4")
        make(tmp_path, values, "blosc-lz4")
        copied = numcodecs.blosc.compress(values[4:8, :, 5:].tobytes(), b"lz4", 0, 0)
        assert len(copied) > BYTES
        put_chunk(tmp_path / "x.h5", copied)
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    def test_two_compressions_are_left_to_h5py(self, tmp_path):
        values = compressible("f4")
        with h5py.File(tmp_path / "x.h5", "w") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(CHUNKS)
            plist.set_filter(32015, h5py.h5z.FLAG_MANDATORY, (3,))
            plist.set_deflate(4)
            space = h5py.h5s.create_simple(SHAPE)
            made = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        source = open_source(str(tmp_path / "x.h5"))
        assert not direct(source)
        agree(source, values)

    @pytest.mark.parametrize("filters", sorted(FILTERS))
    def test_without_imagecodecs(self, tmp_path, filters, monkeypatch):
        values = compressible("f4")
        text = make(tmp_path, values, filters)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        source = open_source(text)
        assert direct(source) is filters.startswith(("blosc", "zstd"))
        agree(source, values)

    @pytest.mark.parametrize("filters", ["zstd", "blosc-lz4", "lz4"])
    def test_without_hdf5plugin(self, tmp_path, filters):
        values = compressible("f4")
        text = make(tmp_path, values, filters)
        np.save(tmp_path / "expected.npy", values)
        code = (
            "import sys\n"
            "sys.modules['hdf5plugin'] = None\n"
            f"sys.modules['imagecodecs'] = None if {filters == 'lz4'} else sys\n"
            "import importlib.util, numpy as np\n"
            "importlib.util.find_spec = lambda name: None\n"
            "from normcli.arrays.opening import open_source\n"
            "from normcli.domain.grid import Block\n"
            "from normcli.errors import InputError\n"
            "try:\n"
            f"    got = open_source({text!r}).read(Block(0, (0, 0, 0), {SHAPE}))\n"
            "except InputError as error:\n"
            "    sys.exit(str(error) + str(error.hint))\n"
            f"assert (got == np.load({str(tmp_path / 'expected.npy')!r})).all()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if filters == "lz4":
            assert "filter 32004" in done.stderr
            assert "normcli[hdf5]" in done.stderr
        else:
            assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("filters", sorted(FILTERS))
    def test_threads(self, tmp_path, filters):
        values = compressible("f4", (64, 20, 30))
        source = open_source(make(tmp_path, values, filters, (8, 20, 15)))
        parts = list(Grid(values.shape, (3, 20, 11))) * 2
        with ThreadPoolExecutor(6) as pool:
            for part, got in zip(parts, pool.map(source.read, parts), strict=True):
                np.testing.assert_array_equal(got, values[part.slices])


def packed(folder, filters, size=None):
    """The stored form of one chunk, and where sizes stand in it."""
    chunk = compressible("f4", CHUNKS) if size is None else np.zeros(size // 4, "f4")
    with h5py.File(folder / "chunk.h5", "w") as file:
        data = file.create_dataset("a", data=chunk, chunks=chunk.shape, **FILTERS[filters])
        return bytearray(data.id.read_direct_chunk((0,) * chunk.ndim)[1])


@pytest.mark.parametrize("filters", sorted(set(FILTERS) - REARRANGED - LEFT))
class TestMalformed:
    def refused(self, tmp_path, stored, kind=InputError):
        put_chunk(tmp_path / "x.h5", bytes(stored))
        source = open_source(str(tmp_path / "x.h5/a"))
        with pytest.raises(kind, match=r"x.h5/a at \(4, 0, 5\).*stored chunk") as caught:
            source.read(whole(SHAPE))
        source.close()
        assert caught.value.exit_code == (4 if kind is SafetyError else 3)

    def test_chunks_of_another_size(self, tmp_path, filters):
        make(tmp_path, compressible("f4"), filters)
        for size in (4, 128, 556, 564, 1 << 20, 1 << 26)[:: steps(2)]:
            chunk = packed(tmp_path, filters, size)
            # What is stored of a chunk is not far more than the chunk.
            lies = len(chunk) > 2 * 560 + 4096
            self.refused(tmp_path, chunk, SafetyError if lies else InputError)

    def test_cut_and_nonsense(self, tmp_path, filters):
        make(tmp_path, compressible("f4"), filters)
        good = packed(tmp_path, filters)
        lengths = (0, 1, 3, 4, 8, 11, 12, 15, 16, 17, len(good) // 2, len(good) - 1)
        for length in lengths[:: steps(3)]:
            self.refused(tmp_path, good[:length] or b"\0")
        self.refused(tmp_path, b"\xff" * 100)
        self.refused(tmp_path, b"\0" * 100)

    def test_any_flipped_bit_gives_numbers_or_an_error(self, tmp_path, filters):
        make(tmp_path, compressible("f4"), filters)
        good = packed(tmp_path, filters)
        put_chunk(tmp_path / "x.h5", bytes(good))
        place, size = stored_at(tmp_path / "x.h5", (4, 0, 5))
        content = (tmp_path / "x.h5").read_bytes()
        assert content[place : place + size] == good
        source = open_source(str(tmp_path / "x.h5/a"))
        source.read(whole(SHAPE))
        chunk = Block(0, (4, 0, 5), (8, 7, 10))
        refused = []
        rng = np.random.default_rng(1)
        with open(tmp_path / "x.h5", "r+b", buffering=0) as file:
            for bit in [*range(8 * 24), *rng.integers(0, 8 * size, examples(400))]:
                damaged = bytearray(good)
                damaged[bit // 8] ^= 1 << bit % 8
                file.seek(place)
                file.write(damaged)
                try:
                    source.read(chunk)
                except InputError as error:
                    refused.append(str(error))
        assert len(refused) > 20
        assert all("x.h5/a at (4, 0, 5)" in text for text in refused)
