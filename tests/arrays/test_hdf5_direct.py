"""HDF5 datasets read and written around h5py, held against h5py."""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli.arrays import hdf5_builtin_filters
from normcli.arrays.hdf5_builtin_filters import fletcher32
from normcli.arrays.opening import make_sink, open_source
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block, Grid
from normcli.errors import InputError, OutputError, SafetyError
from tests.examples import pairs, steps

from .samples import whole

SHAPE = (13, 7, 10)
CHUNKS = (4, 7, 5)
FILTERS = {
    "plain": {},
    "gzip": {"compression": "gzip"},
    "shuffle": {"shuffle": True, "compression": "gzip"},
    "checked": {"shuffle": True, "compression": "gzip", "fletcher32": True},
    "only_shuffle": {"shuffle": True},
    "only_checked": {"fletcher32": True},
}
TYPES = ["<f4", ">f4", "<f2", "u1", "<i8", ">i2", "<f8", "?"]


def sample(dtype, shape=SHAPE):
    values = np.random.default_rng(3).normal(size=shape) * 50 + 100
    return values > 100 if dtype == "?" else values.astype(dtype)


def direct(source):
    return source._handle.get().direct is not None


def make(folder, values, chunks=CHUNKS, name="x.h5", libver=None, **options):
    with h5py.File(folder / name, "w", libver=libver) as file:
        file.create_dataset("a", data=values, chunks=chunks, **options)
    return str(folder / name)


def random_blocks(shape, count=25):
    rng = np.random.default_rng(5)
    for _ in range(count):
        ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
        yield Block(0, tuple(int(a) for a, _ in ends), tuple(int(b) for _, b in ends))
    yield whole(shape)


def agree(source, values):
    for part in random_blocks(values.shape):
        got = source.read(part)
        assert got.dtype == values.dtype.newbyteorder("=")
        assert got.flags.c_contiguous
        assert got.flags.writeable
        np.testing.assert_array_equal(got, values[part.slices])


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(hdf5_builtin_filters, "isal_zlib", None)
    else:
        pytest.importorskip("isal")


class TestReading:
    @pytest.mark.parametrize("libver", [None, "latest"])
    @pytest.mark.parametrize(("filters", "dtype"), pairs(FILTERS, TYPES))
    def test_every_filter_and_type(self, tmp_path, filters, dtype, libver):
        values = sample(dtype)
        # Edge chunks that are only shuffled have the size of raw ones. Bytes say nothing of their
        # order where an element has one, so that those are left to HDF5.
        ambiguous = filters == "only_shuffle" and np.dtype(dtype).itemsize == 1
        text = make(tmp_path, values, libver=libver, **FILTERS[filters])
        source = open_source(text)
        assert direct(source) is not ambiguous
        agree(source, values)

    def test_shuffle_alone_is_read_directly_without_edge_chunks(self, tmp_path):
        values = sample("f4", (8, 7, 10))
        source = open_source(make(tmp_path, values, shuffle=True))
        assert direct(source)
        agree(source, values)

    @pytest.mark.usefixtures("library")
    @pytest.mark.parametrize(
        ("shape", "chunks"),
        [((1000,), (64,)), ((5, 6, 7, 8), (2, 6, 3, 8)), ((3, 4), (3, 4)), ((9, 1), (1, 1))],
        ids=str,
    )
    def test_other_ranks(self, tmp_path, shape, chunks):
        values = sample("f4", shape)
        source = open_source(make(tmp_path, values, chunks, **FILTERS["checked"]))
        assert direct(source)
        agree(source, values)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_contiguous(self, tmp_path, dtype):
        values = sample(dtype)
        source = open_source(make(tmp_path, values, None))
        assert direct(source)
        agree(source, values)

    def test_large_chunks_span_tiles(self, tmp_path):
        for dtype in ("f2", "f4", "f8"):
            values = sample(dtype, (3, 70_001))
            text = make(tmp_path, values, (2, 70_001), f"{dtype}.h5", **FILTERS["checked"])
            agree(open_source(text), values)

    @pytest.mark.parametrize("fill", [np.nan, 7, None])
    @pytest.mark.parametrize("dtype", ["<f4", ">f8"])
    def test_unwritten_chunks_give_the_fill_value(self, tmp_path, fill, dtype):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset(
                "a", SHAPE, dtype, chunks=CHUNKS, fillvalue=fill, compression="gzip"
            )
            data[5:9, :, 6:] = 3
            values = data[...]
            file.create_dataset("empty", SHAPE, dtype, chunks=CHUNKS, fillvalue=fill)
        source = open_source(str(tmp_path / "x.h5/a"))
        assert direct(source)
        agree(source, values)
        empty = open_source(str(tmp_path / "x.h5/empty")).read(whole(SHAPE))
        np.testing.assert_array_equal(empty, np.full(SHAPE, fill or 0))

    def test_filter_mask(self, tmp_path):
        values = sample("f4", (8, 7, 10))
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset("a", values.shape, "f4", chunks=CHUNKS, **FILTERS["checked"])
            for number, part in enumerate(Grid(values.shape, CHUNKS)):
                raw = values[part.slices].tobytes()
                shuffled = np.frombuffer(raw, "u1").reshape(-1, 4).T.tobytes()
                checked = struct.pack("<I", fletcher32(raw))
                stored, mask = [
                    (raw, 0b111),
                    (zlib.compress(raw), 0b101),
                    (zlib.compress(shuffled), 0b100),
                    (raw + checked, 0b011),
                ][number]
                data.id.write_direct_chunk(part.start, stored, mask)
            np.testing.assert_array_equal(data[...], values)
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    def test_resized(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset(
                "a", data=sample("f4"), chunks=CHUNKS, maxshape=(None,) * 3, compression="gzip"
            )
            data.resize((7, 7, 3))
            data.resize((11, 9, 4))
            data.resize((3, 9, 4))
            values = data[...]
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    def test_chunks_larger_than_the_array(self, tmp_path):
        values = sample("f4", (2, 3))
        text = make(tmp_path, values, (8, 8), maxshape=(None, None), compression="gzip")
        agree(open_source(text), values)

    def test_other_storage_is_left_to_h5py(self, tmp_path):
        values = sample("f4")
        whole_numbers = np.round(values)
        with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
            # Nothing in these bytes tells where they are.
            file.create_dataset("run", data=np.zeros((60, 60), "f4"))
        with h5py.File(tmp_path / "y.h5", "w") as file:
            file.create_dataset("lzf", data=values, chunks=CHUNKS, compression="lzf")
            scaled = {"scaleoffset": 0, "chunks": CHUNKS}
            file.create_dataset("scaled", data=whole_numbers.astype("i4"), **scaled)
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(SHAPE)
            made = h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
            file.create_dataset("unwritten", SHAPE, "f4", fillvalue=2)
            layout = h5py.VirtualLayout(SHAPE, "f4")
            layout[:] = h5py.VirtualSource(".", "lzf", SHAPE)
            file.create_virtual_dataset("virtual", layout)
        expected = {
            "x.h5/run": np.zeros((60, 60), "f4"),
            "y.h5/scaled": whole_numbers.astype("i4"),
            "y.h5/compact": values,
            "y.h5/unwritten": np.full(SHAPE, 2, "f4"),
            "y.h5/virtual": values,
        }
        for text, numbers in expected.items():
            source = open_source(str(tmp_path / text))
            assert not direct(source), text
            agree(source, numbers)
            source.close()

    @pytest.mark.parametrize(
        "options", [{}, {"chunks": CHUNKS}, FILTERS["checked"] | {"chunks": CHUNKS}], ids=str
    )
    @pytest.mark.parametrize("userblock", [512, 4096])
    def test_behind_a_user_block(self, tmp_path, userblock, options):
        values = sample("f4")
        with h5py.File(tmp_path / "x.h5", "w", userblock_size=userblock) as file:
            file.create_dataset(
                "a", data=values, **({"chunks": CHUNKS} | options if options else {})
            )
        with open(tmp_path / "x.h5", "r+b") as file:
            file.write(b"a header of another kind")
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    @pytest.mark.parametrize("filters", ["shuffle", "only_checked", "only_shuffle"])
    def test_unfiltered_edge_chunks(self, tmp_path, filters):
        with open("/proc/self/maps") as maps:
            found = {
                line.split()[-1] for line in maps if "/libhdf5-" in line or "/libhdf5." in line
            }
        if not found:
            pytest.skip("HDF5 is not a library of its own here")
        hdf5 = ctypes.CDLL(found.pop())
        values = sample("f4")
        with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(CHUNKS)
            if "shuffle" in filters:
                plist.set_shuffle()
            if filters == "shuffle":
                plist.set_deflate(4)
            if filters == "only_checked":
                plist.set_fletcher32()
            assert hdf5.H5Pset_chunk_opts(ctypes.c_int64(plist.id), ctypes.c_uint(2)) == 0
            space = h5py.h5s.create_simple(SHAPE)
            made = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        source = open_source(str(tmp_path / "x.h5"))
        assert direct(source)
        agree(source, values)

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_threads_and_processes(self, tmp_path):
        values = sample("f4", (64, 20, 30))
        source = open_source(make(tmp_path, values, (5, 20, 7), **FILTERS["checked"]))
        parts = list(Grid(values.shape, (3, 20, 11))) * 3
        with ThreadPoolExecutor(6) as pool:
            for part, got in zip(parts, pool.map(source.read, parts), strict=True):
                np.testing.assert_array_equal(got, values[part.slices])
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.read(parts[3]), values[parts[3].slices])
        for method in ("spawn", "fork"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                got = pool.apply(source.read, (parts[2],))
            np.testing.assert_array_equal(got, values[parts[2].slices])
        source.close()
        np.testing.assert_array_equal(source.read(parts[3]), values[parts[3].slices])


def stored_at(path: Path, start=(0, 0, 0)):
    with h5py.File(path) as file:
        found = file["a"].id.get_chunk_info_by_coord(start)
        return found.byte_offset, found.size


def put_chunk(path: Path, data: bytes, mask: int = 0):
    with h5py.File(path, "r+") as file:
        file["a"].id.write_direct_chunk((4, 0, 5), data, mask)


BYTES = 4 * 7 * 5 * 4
BAD = {
    "short": (zlib.compress(bytes(BYTES - 100)), 0, "inflates to 460 of its 560 bytes"),
    "long": (zlib.compress(bytes(BYTES + 1)), 0, "more than"),
    "bomb": (
        zlib.compress(bytes(1 << 26)),
        0,
        r"is said to have 6\d,\d{3} bytes|more than",
    ),
    "nonsense": (b"nonsense", 0, "does not inflate"),
    "empty": (b"\0", 0, "inflate"),
    "cut": (zlib.compress(sample("u1", (BYTES,)).tobytes())[:-3], 0, "cut|inflate"),
    "adler": (zlib.compress(bytes(BYTES))[:-1] + b"\xff", 0, "inflate"),
    "short_raw": (bytes(BYTES - 1), 0b11, "559 bytes instead of 560"),
}


@pytest.mark.usefixtures("library")
class TestMalformed:
    @pytest.mark.parametrize("kind", BAD)
    def test_chunk_is_named(self, tmp_path, kind):
        data, mask, match = BAD[kind]
        text = make(tmp_path, sample("f4"), **FILTERS["shuffle"])
        put_chunk(tmp_path / "x.h5", data, mask)
        source = open_source(f"{text}/a")
        kind = SafetyError if kind in ("long", "bomb") else InputError
        with pytest.raises(kind, match=match) as caught:
            source.read(whole(SHAPE))
        assert "x.h5/a at (4, 0, 5)" in str(caught.value)
        source.read(Block(0, (0, 0, 0), (4, 7, 10)))

    @pytest.mark.parametrize("filters", ["only_checked", "checked"])
    def test_flipped_bits_under_a_checksum(self, tmp_path, filters):
        make(tmp_path, sample("f4"), **FILTERS[filters])
        place, size = stored_at(tmp_path / "x.h5")
        good = (tmp_path / "x.h5").read_bytes()
        for bit in range(0, 8 * size, 131 * steps(3)):
            data = bytearray(good)
            data[place + bit // 8] ^= 1 << bit % 8
            (tmp_path / "x.h5").write_bytes(data)
            source = open_source(str(tmp_path / "x.h5"))
            with pytest.raises(InputError, match=r"at \(0, 0, 0\).*checksum"):
                source.read(whole(SHAPE))
            source.close()

    def test_checksum_of_old_hdf5(self, tmp_path):
        values = sample("f4")
        make(tmp_path, values, fletcher32=True)
        place, size = stored_at(tmp_path / "x.h5")
        with open(tmp_path / "x.h5", "r+b") as file:
            file.seek(place + size - 4)
            a, b, c, d = file.read(4)
            file.seek(place + size - 4)
            file.write(bytes((b, a, d, c)))
        agree(open_source(str(tmp_path / "x.h5")), values)

    @pytest.mark.parametrize("filters", ["plain", "checked"])
    def test_file_cut_while_it_is_read(self, tmp_path, filters):
        make(tmp_path, sample("f4"), **FILTERS[filters])
        source = open_source(str(tmp_path / "x.h5"))
        source.read(Block(0, (0, 0, 0), (4, 7, 5)))
        place, _ = stored_at(tmp_path / "x.h5", (12, 0, 5))
        with open(tmp_path / "x.h5", "r+b") as file:
            file.truncate(place + 5)
        with pytest.raises(InputError, match=r"at \(12, 0, 5\).*end of the file"):
            source.read(whole(SHAPE))


class TestWriting:
    @pytest.mark.usefixtures("library")
    @pytest.mark.parametrize(("filters", "dtype"), pairs(FILTERS, TYPES))
    def test_h5py_reads_it(self, tmp_path, filters, dtype):
        values = sample(dtype)
        self.write(tmp_path, values, FILTERS[filters])
        with h5py.File(tmp_path / "x.h5") as file:
            np.testing.assert_array_equal(file["a"][...], values)
            assert file["a"].id.get_num_chunks() == 8
        agree(open_source(str(tmp_path / "x.h5")), values)

    @pytest.mark.parametrize("level", [0, 1, 6, 9])
    def test_levels_are_kept_and_sizes_near(self, tmp_path, level):
        values = np.round(sample("f4", (64, 32, 32)), 1)
        options = {"compression": "gzip", "compression_opts": level, "shuffle": True}
        self.write(tmp_path, values, options, (16, 32, 32))
        make(tmp_path, values, (16, 32, 32), "peer.h5", **options)
        with h5py.File(tmp_path / "x.h5") as ours, h5py.File(tmp_path / "peer.h5") as peer:
            np.testing.assert_array_equal(ours["a"][...], values)
            assert ours["a"].compression_opts == level
            sizes = ours["a"].id.get_storage_size(), peer["a"].id.get_storage_size()
            assert sizes[0] < 1.1 * sizes[1]

    def test_incompressible_chunks_skip_the_filter(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 256, SHAPE, "u1")
        self.write(tmp_path, values, FILTERS["gzip"])
        with h5py.File(tmp_path / "x.h5") as file:
            assert file["a"].id.get_chunk_info(0).filter_mask == 1
            np.testing.assert_array_equal(file["a"][...], values)
        agree(open_source(str(tmp_path / "x.h5")), values)

    def test_hdf5_verifies_the_checksum(self, tmp_path):
        self.write(tmp_path, sample("f4"), FILTERS["checked"])
        place, size = stored_at(tmp_path / "x.h5")
        with open(tmp_path / "x.h5", "r+b") as file:
            file.seek(place + size // 2)
            byte = file.read(1)[0]
            file.seek(place + size // 2)
            file.write(bytes([byte ^ 1]))
        with h5py.File(tmp_path / "x.h5") as file, pytest.raises(OSError):
            file["a"][...]

    @pytest.mark.parametrize("filters", ["gzip", "checked"])
    def test_blocks_of_parts_of_chunks_are_refused(self, tmp_path, filters):
        with pytest.raises(OutputError, match="not whole chunks"):
            self.write(tmp_path, sample("f4"), FILTERS[filters], block=(3, 7, 10))

    def test_other_types(self, tmp_path):
        values = sample("f4")
        self.write(tmp_path, values, FILTERS["checked"], given=values.astype("f8"))
        agree(open_source(str(tmp_path / "x.h5")), values)

    def test_one_chunk(self, tmp_path):
        values = sample("f4")
        self.write(tmp_path, values, FILTERS["checked"], (64, 64, 64), block=(64, 64, 64))
        with h5py.File(tmp_path / "x.h5") as file:
            np.testing.assert_array_equal(file["a"][...], values)

    @staticmethod
    def write(folder, values, codecs, chunks=CHUNKS, block=None, given=None):
        info = ArrayInfo(
            values.shape, values.dtype, chunks=chunks, storage="hdf5", codecs=dict(codecs)
        )
        sink = make_sink(str(folder / "x.h5/a"), {"": info}, overwrite=True)
        sink.create()
        given = values if given is None else given
        with ThreadPoolExecutor(4) as pool:
            parts = list(Grid(values.shape, block or (2 * chunks[0], *chunks[1:])))
            list(pool.map(lambda part: sink.write("", part, given[part.slices]), parts))
        sink.seal()
        sink.publish()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8191, 8192, 8193, 16_384, 100_001])
def test_fletcher32_is_the_sum_of_its_definition(size):
    values = np.random.default_rng(size).integers(0, 256, size, "u1")
    for data in (values.tobytes(), bytes(size), b"\xff" * size):
        first = second = 0
        words = struct.unpack(f">{(size + 1) // 2}H", data + b"\0" * (size % 2))
        for word in words:
            first += word
            second += first
        expected = [(n - 1) % 65535 + 1 if n else 0 for n in (first, second)]
        assert fletcher32(data) == expected[1] << 16 | expected[0]
