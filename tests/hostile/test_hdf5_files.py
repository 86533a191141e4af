"""HDF5 files that are broken, lead elsewhere, or lie about their size."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.terminal import call
from tests.hostile.commands import SECRET, Case, case, pooled, require_refused

VALUES = np.random.default_rng(4).normal(size=(40, 6)).astype("f4")
FILTERS = {"compression": "gzip", "shuffle": True, "fletcher32": True}


def plain(folder: Path, **options) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("a", data=VALUES, **options)
    return folder / "x.h5"


def raw(data: bytes):
    def build(folder: Path) -> str:
        (folder / "x.h5").write_bytes(data)
        return "x.h5/a"

    return build


def cut(keep: float, **options):
    def build(folder: Path) -> str:
        path = plain(folder, **options)
        os.truncate(path, int(path.stat().st_size * keep))
        return "x.h5/a"

    return build


def made(write):
    def build(folder: Path) -> str:
        with h5py.File(folder / "x.h5", "w") as file:
            write(file)
        return "x.h5/a"

    return build


def typed(dtype, value=None):
    def write(file: h5py.File) -> None:
        data = file.create_dataset("a", (3,), dtype)
        if value is not None:
            data[0] = value

    return made(write)


def flipped(**options):
    """Return a builder that flips one bit of a stored chunk."""

    def build(folder: Path) -> str:
        path = plain(folder, chunks=(10, 6), **options)
        with h5py.File(path) as file:
            place = file["a"].id.get_chunk_info(2).byte_offset
        with open(path, "r+b") as file:
            file.seek(place + 30)
            byte = file.read(1)[0]
            file.seek(place + 30)
            file.write(bytes([byte ^ 4]))
        return "x.h5/a"

    return build


def stored_chunk(
    data: bytes,
    userblock: int = 0,
    shape: tuple[int, int] = VALUES.shape,
    precision: int = 32,
    scaleoffset: int | None = None,
):
    """Return a builder of a gzip dataset with one chunk of these bytes.

    With integers of another precision, or another filter, reading it is left to HDF5.
    """

    def build(folder: Path) -> str:
        with h5py.File(folder / "x.h5", "w", userblock_size=userblock) as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((10, 6))
            if scaleoffset is not None:
                plist.set_scaleoffset(h5py.h5z.SO_INT, scaleoffset)
            plist.set_deflate(4)
            space = h5py.h5s.create_simple(shape)
            kind = h5py.h5t.STD_I32LE.copy()
            kind.set_precision(precision)
            data_id = h5py.h5d.create(file.id, b"a", kind, space, plist)
            whole = h5py.Dataset(data_id)
            whole[...] = VALUES[: shape[0]]
            data_id.write_direct_chunk((10, 0), data)
        return "x.h5/a"

    return build


def long_as_a_chunk() -> bytes:
    """Return a gzip stream of 240 bytes that inflates to 70 kB, filled up by empty blocks."""
    worker = zlib.compressobj(9)
    data = worker.compress(bytes(70_000)) + worker.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, wbits=-15).flush() + zlib.adler32(bytes(70_000)).to_bytes(4, "big")
    empty = b"\0\0\0\xff\xff"
    count, rest = divmod(ONE - len(data) - len(end), len(empty))
    assert count > 0
    return data + empty * count + end + bytes(rest)


def unknown_filter(folder: Path) -> str:
    path = plain(folder, chunks=(10, 6), compression="gzip")
    with h5py.File(path, "r+") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((40,))
        h5py.h5d.create(file.id, b"b", h5py.h5t.IEEE_F32LE, space, plist)
    return "x.h5/b"


def unfinished(folder: Path) -> str:
    """A writer with the crash-safe format that never closed its file."""
    if not os.fork():
        file = h5py.File(folder / "x.h5", "w", libver="latest")
        file["a"] = VALUES
        file.flush()
        os._exit(0)
    os.wait()
    return "x.h5/a"


def soft_loop(file: h5py.File) -> None:
    file["a"] = h5py.SoftLink("/b")
    file["b"] = h5py.SoftLink("/a")


def huge_chunked(shape: tuple[int, ...], chunks: tuple[int, ...]):
    return made(lambda file: file.create_dataset("a", shape, "f4", chunks=chunks))


def one_of_many(folder: Path) -> str:
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 12,))
        data[:10] = 1
    return "x.h5/a"


def hidden_contiguous(folder: Path) -> str:
    """A contiguous dataset whose extent was raised in the file itself."""
    path = plain(folder)
    data = bytearray(path.read_bytes())
    shape = struct.pack("<2Q", *VALUES.shape)
    place = data.index(shape)
    data[place : place + 16] = struct.pack("<2Q", 1 << 34, 6)
    if data[place + 16 : place + 32] == shape:
        data[place + 16 : place + 32] = struct.pack("<2Q", 1 << 34, 6)
    path.write_bytes(data)
    return "x.h5/a"


ONE = 10 * 6 * 4
CASES: dict[str, Case] = {
    "empty": case(raw(b""), 3, "x.h5 is empty"),
    "magic only": case(raw(b"\x89HDF\r\n\x1a\n"), 3, "x.h5"),
    "half": case(cut(0.5), 3, "x.h5", "truncated"),
    "tail": case(cut(0.99), 3, "x.h5", "truncated"),
    "half chunked": case(cut(0.5, chunks=(4, 6), **FILTERS), 3, "x.h5", "truncated"),
    "text": case(raw(b"hello\nworld" * 99), 3, "not an HDF5 file"),
    "CSV": case(raw(b"a,b,c\n1,2,3\n" * 99), 3, "looks like text (CSV)"),
    "HTML": case(raw(b"<html><body>Not found"), 3, "looks like HTML: did a download fail?"),
    "LFS": case(raw(b"version https://git-lfs.github.com/spec/v1\n"), 3, "git lfs pull"),
    "zip": case(raw(b"PK\x03\x04" + b"\0" * 999), 3, "is a ZIP or NPZ file"),
    "NPY": case(raw(b"\x93NUMPY\x01\x00" + b"\0" * 999), 3, "is an NPY file"),
    "HDF4": case(raw(b"\x0e\x03\x13\x01" + b"\0" * 999), 3, "h4toh5"),
    "never closed": case(unfinished, 3, "x.h5"),
    "bit under fletcher32": case(flipped(fletcher32=True), 3, "x.h5/a at (20, 0)", "checksum"),
    "bit under gzip": case(flipped(**FILTERS), 3, "x.h5/a at (20, 0)"),
    "short chunk": case(
        stored_chunk(zlib.compress(bytes(100))), 3, "x.h5/a at (10, 0)", "100 of its 240 bytes"
    ),
    "short chunk, user block": case(
        stored_chunk(zlib.compress(bytes(100)), 512), 3, "x.h5/a at (10, 0)", "100 of its 240 bytes"
    ),
    "long chunk": case(stored_chunk(zlib.compress(bytes(ONE + 1))), 4, "x.h5/a at (10, 0)", "more"),
    "bomb": case(stored_chunk(zlib.compress(bytes(1 << 22))), 4, "x.h5/a at (10, 0)", "more than"),
    "bomb, user block": case(
        stored_chunk(zlib.compress(bytes(1 << 22)), 512), 4, "x.h5/a at (10, 0)", "more than"
    ),
    "bomb left to HDF5": case(
        stored_chunk(zlib.compress(bytes(1 << 22)), precision=16),
        4,
        "x.h5/a at (10, 0)",
        "more than",
    ),
    "bomb behind scale-offset": case(
        stored_chunk(zlib.compress(bytes(1 << 22)), scaleoffset=4),
        4,
        "x.h5/a at (10, 0)",
        "more than",
    ),
    "bomb of the size of a chunk": case(
        stored_chunk(long_as_a_chunk(), precision=16), 4, "x.h5/a at (10, 0)", "more than"
    ),
    "bomb of that size across the edge": case(
        stored_chunk(long_as_a_chunk(), shape=(15, 6)), 4, "x.h5/a at (10, 0)", "more than"
    ),
    "chunk said to be long": case(
        stored_chunk(zlib.compress(bytes(1 << 24))), 4, "x.h5/a at (10, 0)", "16,316 bytes"
    ),
    "chunk of nonsense": case(stored_chunk(b"nonsense"), 3, "x.h5/a at (10, 0)", "inflate"),
    "unknown filter": case(unknown_filter, 3, "x.h5/b", "filter 31999"),
    "soft loop": case(made(soft_loop), 3, "x.h5/", "40 links"),
    "dangling": case(made(lambda f: f.update(a=h5py.SoftLink("/no"))), 3, "x.h5 has no dataset"),
    "group": case(made(lambda f: f.create_group("a")), 3, "x.h5/a is no dataset"),
    "no dataset": case(made(lambda f: f.create_group("b")), 3, "x.h5 has no dataset a", "b"),
    "null space": case(made(lambda f: f.update(a=h5py.Empty("f4"))), 3, "x.h5/a", "no shape"),
    "complex": case(typed("c8"), 3, "complex64", "imaginary"),
    "record": case(typed([("p", "f4"), ("q", "i4")]), 3, "field", "p, q"),
    "strings": case(typed(h5py.string_dtype(), "x"), 3, "strings"),
    "fixed strings": case(typed("S4", b"x"), 3, "strings"),
    "rows of any length": case(typed(h5py.vlen_dtype("f4"), [1.0]), 3, "vlen of float32"),
    "references": case(typed(h5py.ref_dtype), 3, "references"),
    "enumeration": case(typed(h5py.enum_dtype({"A": 0})), 3, "enumeration"),
    "opaque": case(typed(h5py.opaque_dtype("M8[s]")), 3, "x.h5/a"),
    "2**60 rows": case(huge_chunked((1 << 60,), (1 << 16,)), 7, "0.0 % of chunks exist"),
    "2.5e10 chunks": case(huge_chunked((10**12,), (40,)), 7, "0.0 % of chunks exist"),
    "one chunk of 2**28": case(one_of_many, 7, "0.0 % of chunks exist (1 of 268435456)"),
    "8 TiB, never written": case(
        made(lambda f: f.create_dataset("a", (1 << 41,), "f4")), 7, "0.0 % of chunks exist"
    ),
    "a forged extent": case(hidden_contiguous, (3, 4, 7), "x.h5"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path, monkeypatch, name):
    require_refused(tmp_path, CASES[name], monkeypatch)


def secret(folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["s"] = np.full((4, 3), SECRET)
    (folder / "secret.raw").write_bytes(np.full((4, 3), SECRET).tobytes())


def external_last(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("secret.h5", "/s")


def external_middle(file: h5py.File) -> None:
    file["g"] = h5py.ExternalLink("secret.h5", "/")
    file["a"] = h5py.SoftLink("/g/s")


def through_soft(file: h5py.File) -> None:
    file["e"] = h5py.ExternalLink("secret.h5", "/s")
    file["b"] = h5py.SoftLink("/e")
    file["a"] = h5py.SoftLink("/b")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "s", (4, 3))
    file.create_virtual_dataset("a", layout)


def virtual_over_link(file: h5py.File) -> None:
    file["e"] = h5py.ExternalLink("secret.h5", "/s")
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource(".", "e", (4, 3))
    file.create_virtual_dataset("a", layout)


def virtual_mixed(file: h5py.File) -> None:
    file["own"] = np.zeros((2, 3))
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:2] = h5py.VirtualSource(".", "own", (2, 3))
    layout[2:] = h5py.VirtualSource("secret.h5", "s", (4, 3))[:2]
    file.create_virtual_dataset("a", layout)


def raw_storage(file: h5py.File) -> None:
    file.create_dataset("a", (4, 3), "f8", external=[("secret.raw", 0, 96)])


LEADING_OUT = (
    external_last,
    external_middle,
    through_soft,
    virtual,
    virtual_over_link,
    virtual_mixed,
    raw_storage,
)


@pytest.mark.parametrize("write", LEADING_OUT, ids=lambda write: write.__name__)
def test_leads_out_of_the_file(tmp_path, monkeypatch, write):
    secret(tmp_path)
    require_refused(tmp_path, case(made(write), 4, "x.h5", "secret."), monkeypatch)
    hidden = (tmp_path / "secret.h5").rename(tmp_path / "hidden.h5")
    (tmp_path / "secret.raw").rename(tmp_path / "hidden.raw")
    require_refused(tmp_path, case(made(write), 4, "x.h5", "secret."), monkeypatch)
    hidden.rename(tmp_path / "secret.h5")
    (tmp_path / "hidden.raw").rename(tmp_path / "secret.raw")
    # With the option, the numbers of the other file are the right ones.
    ended = call("fit", "x.h5/a", "-o", "s.json", "--allow-external-refs")
    assert ended.code == 0, ended
    mean = SECRET / 2 if write is virtual_mixed else SECRET
    assert pooled(tmp_path / "s.json")[::2] == (mean, 12)


@pytest.mark.parametrize("write", [external_last, virtual, raw_storage], ids=lambda w: w.__name__)
@pytest.mark.parametrize("target", ["missing", "pipe"])
def test_allowed_targets_must_be_there_and_plain(tmp_path, monkeypatch, write, target):
    if target == "pipe":
        os.mkfifo(tmp_path / "secret.h5")
        os.mkfifo(tmp_path / "secret.raw")
    words = "no regular file" if target == "pipe" else "does not exist"
    given = case(made(write), 3, "x.h5/a", words, options=("--allow-external-refs",))
    require_refused(tmp_path, given, monkeypatch)


def test_proc_is_not_read(tmp_path, monkeypatch):
    def environ(file: h5py.File) -> None:
        file.create_dataset("a", (16,), "u1", external=[("/proc/self/environ", 0, 16)])

    require_refused(tmp_path, case(made(environ), 4, "/proc/self/environ"), monkeypatch)
