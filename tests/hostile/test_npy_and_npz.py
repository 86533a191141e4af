"""NPY and NPZ files that are broken, lie about their size, or carry code."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.commands import Case, case, require_refused

VALUES = np.random.default_rng(3).normal(size=(40, 6)).astype("f4")


class Canary:
    """Unpickling one makes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (os.mkdir, (str(self.place),))


def npy(values=VALUES, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def header(text: str, data: bytes = b"\0" * 64, version: int = 1) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + data


def shaped(shape: str, descr: str = "'<f4'", more: str = "") -> bytes:
    return header(f"{{'descr':{descr},'fortran_order':False,'shape':{shape},{more}}}")


def raw(name: str, data: bytes):
    def build(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return name

    return build


def pickled(folder: Path) -> np.ndarray:
    return np.array([Canary(folder / "canary")], object)


def object_npy(folder: Path) -> str:
    np.save(folder / "x.npy", pickled(folder), allow_pickle=True)
    return "x.npy"


def object_field_npy(folder: Path) -> str:
    values = np.array([(1.0, Canary(folder / "canary"))], [("a", "f4"), ("b", "O")])
    np.save(folder / "x.npy", values, allow_pickle=True)
    return "x.npy"


def object_npz(folder: Path) -> str:
    np.savez(folder / "x.npz", a=pickled(folder), allow_pickle=True)
    return "x.npz/a"


def object_npz_alone(folder: Path) -> str:
    """The array is not named; the only one is that of objects."""
    return object_npz(folder).removesuffix("/a")


def object_npz_packed(folder: Path) -> str:
    np.savez_compressed(folder / "x.npz", a=pickled(folder), allow_pickle=True)
    return "x.npz/a"


def plain_pickle(name: str, protocol: int = 4):
    def build(folder: Path) -> str:
        (folder / name).write_bytes(pickle.dumps(Canary(folder / "canary"), protocol))
        return name

    return build


def fifo(name: str):
    def build(folder: Path) -> str:
        os.mkfifo(folder / name)
        return name

    return build


def a_socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("x.npy")  # a relative name: paths of sockets are short
    return "x.npy"


def to_device(folder: Path) -> str:
    (folder / "x.npy").symlink_to("/dev/zero")
    return "x.npy"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED, cut: int = 0):
    def build(folder: Path) -> str:
        with zipfile.ZipFile(folder / "x.npz", "w", method) as archive:
            for name, data in members:
                archive.writestr(name, data)
        if cut:
            os.truncate(folder / "x.npz", (folder / "x.npz").stat().st_size - cut)
        return "x.npz/a"

    return build


def patched(build, find: bytes, change):
    """Return a builder that changes a made NPZ behind the first place of `find`."""

    def patch(folder: Path) -> str:
        name = build(folder)
        data = bytearray((folder / "x.npz").read_bytes())
        change(data, data.index(find))
        (folder / "x.npz").write_bytes(data)
        return name

    return patch


def flip(data: bytearray, place: int) -> None:
    data[place + 400] ^= 4


def encrypt(data: bytearray, place: int) -> None:
    data[place + 8] |= 1  # the flags in the directory


def claim_size(size: int):
    def change(data: bytearray, place: int) -> None:
        data[place + 24 : place + 28] = struct.pack("<I", size)

    return change


def zip_bomb(folder: Path) -> str:
    """A member of 16 MiB in 16 kB, which its own header says to hold 10 numbers."""
    big = shaped("(10,)") + b"\0" * (1 << 24)
    zipped(("a.npy", big), method=zipfile.ZIP_DEFLATED)(folder)
    return "x.npz/a"


def nested_shape(depth: int) -> bytes:
    return shaped("(" * depth + "1" + ")" * depth)


CASES: dict[str, Case] = {
    # cut and malformed
    "empty": case(raw("x.npy", b""), 3, "x.npy is empty"),
    "magic only": case(raw("x.npy", b"\x93NUMPY"), 3, "cut in its NPY header"),
    "version only": case(raw("x.npy", b"\x93NUMPY\x01\x00"), 3, "cut in its NPY header"),
    "header cut": case(raw("x.npy", npy()[:60]), 3, "cut in its NPY header"),
    "data cut": case(raw("x.npy", npy()[:-1]), 3, "x.npy is cut", "1088 bytes", "1087"),
    "no data": case(raw("x.npy", npy()[:128]), 3, "x.npy is cut"),
    "version 9": case(raw("x.npy", b"\x93NUMPY\x09\x00" + b"\0" * 99), 3, "version 9.0"),
    "bad dtype": case(raw("x.npy", shaped("(3,)", "'<q9'")), 3, "malformed NPY header"),
    "extra key": case(raw("x.npy", shaped("(3,)", more="'x':1,")), 3, "malformed NPY header"),
    "no key": case(raw("x.npy", header("{'descr':'<f4'}")), 3, "malformed NPY header"),
    "negative shape": case(raw("x.npy", shaped("(-3,)")), 3, "shape"),
    "float shape": case(raw("x.npy", shaped("(3.0,)")), 3, "malformed NPY header"),
    "bool shape": case(raw("x.npy", shaped("(True,)")), 3, "shape"),
    "shape of words": case(raw("x.npy", shaped("('a',)")), 3, "malformed NPY header"),
    "65 axes": case(raw("x.npy", shaped("(" + "1," * 65 + ")")), 3, "x.npy"),
    "items of no size": case(raw("x.npy", shaped("(1000000000,)", "'|V0'")), 3, "x.npy"),
    "code in the header": case(raw("x.npy", header("__import__('os').abort()")), 3, "malformed"),
    "sum in the header": case(raw("x.npy", shaped("(2**60,)")), 3, "malformed"),
    "deep header": case(raw("x.npy", nested_shape(50)), 3, "x.npy"),
    "header not ascii": case(raw("x.npy", header("{'descr':'<f4\u00e9'}")), 3, "malformed"),
    # sizes that no file holds
    "8 TiB": case(raw("x.npy", shaped(f"({2**41},)")), 4, "x.npy is cut", "Nothing was allocated"),
    "overflow": case(raw("x.npy", shaped(f"({2**62},{2**62})")), 4, "x.npy is cut"),
    "header of 4 GiB": case(
        raw("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), 4, "header of 4294967295 bytes"
    ),
    "header too long": case(
        raw("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 20000) + b" " * 20000), 3, "header"
    ),
    # no NPY at all
    "CSV": case(raw("x.npy", b"a,b,c\n1,2,3\n4,5,6\n"), 3, "x.npy looks like text (CSV)"),
    "numbers by tabs": case(raw("x.npy", b"1.5\t2\n3\t4\n"), 3, "looks like text (CSV)"),
    "HTML": case(
        raw("x.npy", b"\n<!DOCTYPE html>\n<html><title>404"),
        3,
        "looks like HTML: did a download fail?",
    ),
    "LFS": case(
        raw("x.npy", b"version https://git-lfs.github.com/spec/v1\noid"), 3, "git lfs pull"
    ),
    "HDF5": case(raw("x.npy", b"\x89HDF\r\n\x1a\n" + b"\0" * 99), 3, "is an HDF5 file"),
    "zip": case(raw("x.npy", b"PK\x03\x04" + b"\0" * 99), 3, "is a ZIP or NPZ file"),
    "gzip": case(raw("x.npy", b"\x1f\x8b" + b"\0" * 99), 3, "is a gzip file"),
    "zeros": case(raw("x.npy", b"\0" * 999), 3, "full of zeros"),
    "folder": case(lambda folder: (folder / "x.npy").mkdir() or "x.npy", 3, "is a folder"),
    "pipe": case(fifo("x.npy"), 3, "x.npy is a pipe or a device"),
    "pipe npz": case(fifo("x.npz"), 3, "x.npz is a pipe or a device"),
    "socket": case(a_socket, 3, "x.npy"),
    "device": case(to_device, 3, "x.npy is a pipe or a device"),
    # types that are valid, but no real numbers
    "complex": case(raw("x.npy", npy(np.ones(3, "c8"))), 3, "complex64", "imaginary"),
    "records": case(raw("x.npy", npy(np.ones(3, [("p", "f4")]))), 3, "'p'", "field"),
    "dates": case(raw("x.npy", npy(np.zeros(3, "M8[s]"))), 3, "datetime64[s]"),
    "durations": case(raw("x.npy", npy(np.zeros(3, "m8[s]"))), 3, "timedelta64[s]"),
    "strings": case(raw("x.npy", npy(np.array(["a"]))), 3, "<U1"),
    "bytes": case(raw("x.npy", npy(np.array([b"a"]))), 3, "|S1"),
    "long double": case(raw("x.npy", npy(np.ones(3, "g"))), 3, "float128"),
    # code
    "objects": case(object_npy, 4, "x.npy", "never loads pickles"),
    "object field": case(object_field_npy, 4, "never loads pickles"),
    "objects in npz": case(object_npz, 4, "x.npz/a", "never loads pickles"),
    "objects in npz, not named": case(object_npz_alone, 4, "x.npz", "never loads pickles"),
    "objects in packed npz": case(object_npz_packed, 4, "never loads pickles"),
    "pickle as npy": case(plain_pickle("x.npy"), 4, "x.npy contains a pickle"),
    "pickle 2 as npz": case(plain_pickle("x.npz", 2), 4, "x.npz contains a pickle"),
    "pickle as h5": case(plain_pickle("x.h5", 5), 4, "x.h5 contains a pickle"),
    "pickle": case(plain_pickle("x.pkl"), 4, "x.pkl contains a pickle"),
    # NPZ
    "npz empty": case(raw("x.npz", b""), 3, "x.npz is empty"),
    "npz of text": case(raw("x.npz", b"hello"), 3, "not an NPZ file"),
    "npz cut": case(zipped(("a.npy", npy()), cut=60), 3, "x.npz"),
    "npz of nothing": case(zipped(), 3, "x.npz", "nothing"),
    "npz wrong key": case(zipped(("b.npy", npy()), ("c.npy", npy())), 3, "no array a", "b, c"),
    "npz of text members": case(zipped(("a.txt", b"hello")), 3, "no array a"),
    "npz of a text called npy": case(zipped(("a.npy", b"hello, world")), 3, "x.npz/a"),
    "npz stored bit": case(patched(zipped(("a.npy", npy())), b"PK", flip), 3, "x.npz/a", "CRC-32"),
    "npz packed bit": case(
        patched(zipped(("a.npy", npy()), method=zipfile.ZIP_DEFLATED), b"PK", flip), 3, "x.npz/a"
    ),
    "npz encrypted": case(
        patched(zipped(("a.npy", npy())), b"PK\x01\x02", encrypt), 3, "x.npz/a is encrypted"
    ),
    "npz bzip2 cut": case(
        patched(zipped(("a.npy", npy()), method=zipfile.ZIP_BZIP2), b"PK", flip), 3, "x.npz/a"
    ),
    "npz size lies": case(
        patched(zipped(("a.npy", npy())), b"PK\x01\x02", claim_size(1 << 31)), (3, 4), "x.npz/a"
    ),
    "npz shape lies": case(zipped(("a.npy", shaped(f"({2**41},)"))), 4, "x.npz/a is cut"),
    "npz shape lies, packed": case(
        zipped(("a.npy", shaped(f"({2**41},)")), method=zipfile.ZIP_DEFLATED), 4, "x.npz/a is cut"
    ),
    "npz shape lies, bzip2": case(
        zipped(("a.npy", shaped(f"({2**41},)")), method=zipfile.ZIP_BZIP2), 4, "x.npz/a is cut"
    ),
    "npz bomb": case(zip_bomb, 3, "x.npz/a", "bytes after its array"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path, monkeypatch, name):
    require_refused(tmp_path, CASES[name], monkeypatch)
    assert not (tmp_path / "canary").exists()


def test_the_canary_sings(tmp_path):
    """The pickles of these tests do what normcli must not do."""
    object_npy(tmp_path)
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert (tmp_path / "canary").exists()


def test_bytes_behind_the_array_are_told(tmp_path, monkeypatch):
    from tests.cli.terminal import call

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(npy() + b"tail")
    ended = call("fit", "x.npy", "-o", "s.json")
    assert ended.code == 0
    assert "warning: x.npy has 4 bytes after its array." in ended.err


def test_a_forged_directory_hides_no_bomb(tmp_path, monkeypatch):
    """The directory says few bytes; inflating stops there."""
    data = zlib.compress(b"\0" * (1 << 20))
    assert len(data) < 1 << 12
    given = case(
        patched(
            zipped(("a.npy", shaped("(16,)") + b"\0" * (1 << 22)), method=zipfile.ZIP_DEFLATED),
            b"PK\x01\x02",
            claim_size(128 + 64),
        ),
        3,
        "x.npz/a",
    )
    require_refused(tmp_path, given, monkeypatch)


def test_a_flipped_bit_in_a_large_stored_member(tmp_path, monkeypatch):
    """Stored members are read in place, yet their checksum is compared."""
    large = npy(np.arange(1 << 18, dtype="f4").reshape(-1, 8))
    given = case(patched(zipped(("a.npy", large)), b"PK", flip), 3, "x.npz/a", "CRC-32")
    require_refused(tmp_path, given, monkeypatch)
