"""Bad inputs and bad names: which error, and what it says."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from normcli.arrays.opening import (
    list_arrays,
    make_sink,
    open_joined,
    open_source,
    refuse_same,
)
from normcli.arrays.stream import NpyStreamSource
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Grid
from normcli.errors import InputError, OutputError, SafetyError, UsageError

from .samples import VALUES, whole

INFO = ArrayInfo((3,), np.dtype("f4"))


def npy_bytes(values=VALUES, **kwargs) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **kwargs)
    return buffer.getvalue()


def npy_header(text: str) -> bytes:
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64


RAW = {
    "empty.npy": (b"", "is empty"),
    "magic.npy": (b"\x93NUMPY\x01\x00", "cut in its NPY header"),
    "header.npy": (npy_bytes()[:40], "cut in its NPY header"),
    "data.npy": (npy_bytes()[:-1], "is cut: shape"),
    "version.npy": (b"\x93NUMPY\x09\x00" + b"\0" * 99, "unknown version 9.0"),
    "long.npy": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header of 4294967295 bytes"),
    "objects.npy": (npy_bytes(np.array([{}], object), allow_pickle=True), "Python objects"),
    "complex.npy": (npy_bytes(np.zeros(3, complex)), "complex"),
    "raw.npy": (npy_bytes(np.zeros(3, "V2")), "raw records"),
    "record.npy": (npy_bytes(np.zeros(3, [("a", "f4")])), "records"),
    "date.npy": (npy_bytes(np.zeros(3, "M8[s]")), "dates"),
    "negative.npy": (npy_header("{'descr':'<f4','fortran_order':False,'shape':(-1,)}"), "shape"),
    "bool.npy": (npy_header("{'descr':'<f4','fortran_order':False,'shape':(True,)}"), "shape"),
    "huge.npy": (npy_header("{'descr':'<f4','fortran_order':False,'shape':(2**60,)}"), "header"),
    "large.npy": (npy_header(f"{{'descr':'<f4','fortran_order':False,'shape':({2**60},)}}"), "cut"),
    "code.npy": (npy_header("__import__('os').abort()"), "malformed"),
    "page.npy": (b"<!DOCTYPE html><html>", "web page"),
    "lfs.npy": (b"version https://git-lfs.github.com/spec/v1", "LFS pointer"),
    "hdf5.npy": (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "is an HDF5 file"),
    "text.h5": (b"a,b,c\n1,2,3\n" * 99, "not an HDF5 file"),
    "empty.h5": (b"", "is empty"),
    "magic.h5": (b"\x89HDF\r\n\x1a\n", "could not be read as HDF5"),
    "classic.nc": (b"CDF\x01" + b"\0" * 999, "netCDF 3"),
    "old.mat": (b"MATLAB 5.0 MAT-file" + b"\0" * 999, "older than v7.3"),
    "hdf4.hdf": (b"\x0e\x03\x13\x01" + b"\0" * 999, "HDF4"),
    "text.npz": (b"hello", "not an NPZ file"),
    "cut.npz": (b"PK\x03\x04" + b"\0" * 99, "damaged"),
    "table.csv": (b"1,2", "does not know"),
    "plain": (b"1,2", "no suffix"),
    "file.zarr": (b"1,2", "not a folder"),
}


# Not a mistake but a forged header, or code.
FORGED = {"long.npy", "large.npy", "objects.npy"}


@pytest.mark.parametrize("name", RAW)
def test_malformed_files(tmp_path, name):
    content, message = RAW[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SafetyError if name in FORGED else InputError, match=message) as caught:
        open_source(str(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def folder_npy(path: Path) -> str:
    (path / "x.npy").mkdir()
    return "x.npy"


def fifo_npy(path: Path) -> str:
    os.mkfifo(path / "x.npy")
    return "x.npy"


def fifo_h5(path: Path) -> str:
    os.mkfifo(path / "x.h5")
    return "x.h5"


def folder_h5(path: Path) -> str:
    (path / "x.h5").mkdir()
    return "x.h5/y"


def missing_npy(path: Path) -> str:
    return "x.npy"


def missing_zarr(path: Path) -> str:
    return "x.zarr/y"


def empty_zarr(path: Path) -> str:
    (path / "x.zarr").mkdir()
    return "x.zarr"


def bad_json_zarr(path: Path) -> str:
    (path / "x.zarr").mkdir()
    (path / "x.zarr/zarr.json").write_text('{"node_type": "array"')
    return "x.zarr"


def wrong_types_zarr(path: Path) -> str:
    zarr.create_array(path / "x.zarr", shape=(3,), dtype="f4")
    document = path / "x.zarr/zarr.json"
    document.write_text(document.read_text().replace('"float32"', '{"a": 1}'))
    return "x.zarr"


def unknown_codec_zarr(path: Path) -> str:
    zarr.create_array(path / "x.zarr", shape=(3,), dtype="f4")
    document = path / "x.zarr/zarr.json"
    document.write_text(document.read_text().replace('"zstd"', '"magic"'))
    return "x.zarr"


def missing_inner_zarr(path: Path) -> str:
    zarr.create_array(path / "x.zarr", name="a/b", shape=(3,), dtype="f4")
    return "x.zarr/c"


def complex_zarr(path: Path) -> str:
    zarr.create_array(path / "x.zarr", shape=(3,), dtype="c8")
    return "x.zarr"


def missing_dataset(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = [1.0]
    return "x.h5/b"


def group_not_dataset(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a/b"] = [1.0]
    return "x.h5/a"


def compound_dataset(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = np.zeros(3, [("p", "f4"), ("q", "i4")])
    return "x.h5/a"


def enum_dataset(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file.create_dataset("a", (3,), h5py.enum_dtype({"RED": 0, "BLUE": 1}))
    return "x.h5/a"


def string_dataset(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = ["x", "y"]
    return "x.h5/a"


def soft_loop(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
    return "x.h5/a"


def cut_hdf5(path: Path) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = VALUES
    os.truncate(path / "x.h5", (path / "x.h5").stat().st_size - 100)
    return "x.h5/a"


def missing_member(path: Path) -> str:
    np.savez(path / "x.npz", a=VALUES)
    return "x.npz/b"


def object_member(path: Path) -> str:
    np.savez(path / "x.npz", a=np.array([{}], object))
    return "x.npz/a"


def twin_members(path: Path) -> str:
    with zipfile.ZipFile(path / "x.npz", "w") as archive:
        archive.writestr("a.npy", npy_bytes())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy_bytes())
    return "x.npz/a"


def several_arrays(path: Path) -> str:
    np.savez(path / "x.npz", a=VALUES, b=VALUES)
    return "x.npz"


BUILT = {
    folder_npy: "is a folder",
    fifo_npy: "pipe or a device",
    fifo_h5: "pipe or a device",
    folder_h5: "is a folder",
    missing_npy: "does not exist",
    missing_zarr: "does not exist",
    empty_zarr: "without Zarr metadata",
    bad_json_zarr: "could not be read as Zarr",
    wrong_types_zarr: "could not be read as Zarr",
    unknown_codec_zarr: "magic",
    missing_inner_zarr: "has no array c",
    complex_zarr: "complex",
    missing_dataset: "has no dataset b",
    group_not_dataset: "is no dataset",
    compound_dataset: "records",
    enum_dataset: "enumeration",
    string_dataset: "strings",
    soft_loop: "more than 40 links",
    cut_hdf5: "truncated",
    missing_member: "has no array b",
    object_member: "Python objects",
    twin_members: "two members",
    several_arrays: r"holds 2 arrays: a \(13, 6, 10\) float32, b",
}


@pytest.mark.parametrize("build", BUILT, ids=lambda build: build.__name__)
def test_unsuitable_inputs(tmp_path, build):
    name = build(tmp_path)
    with pytest.raises(
        SafetyError if build is object_member else InputError, match=BUILT[build]
    ) as caught:
        open_source(str(tmp_path / name))
    assert "x." in str(caught.value)


def external_link(path: Path) -> None:
    with h5py.File(path / "x.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(path / "secret.h5"), "/s")


def external_group(path: Path) -> None:
    with h5py.File(path / "x.h5", "w") as file:
        file["g"] = h5py.ExternalLink(str(path / "secret.h5"), "/")
        file["a"] = h5py.SoftLink("/g/s")


def external_storage(path: Path) -> None:
    with h5py.File(path / "x.h5", "w") as file:
        file.create_dataset("a", (4,), "u1", external=[(str(path / "secret.h5"), 0, 4)])


def virtual_dataset(path: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(path / "secret.h5"), "s", (3,))
    with h5py.File(path / "x.h5", "w") as file:
        file.create_virtual_dataset("a", layout)


def virtual_over_external(path: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(".", "inner", (3,))
    with h5py.File(path / "x.h5", "w") as file:
        file["inner"] = h5py.ExternalLink(str(path / "secret.h5"), "/s")
        file.create_virtual_dataset("a", layout)


@pytest.mark.parametrize(
    "build",
    [external_link, external_group, external_storage, virtual_dataset, virtual_over_external],
    ids=lambda build: build.__name__,
)
def test_hdf5_never_leaves_its_file(tmp_path, build):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["s"] = np.full(3, 4242.5)
    build(tmp_path)
    with pytest.raises(SafetyError, match=r"secret\.h5"):
        open_source(str(tmp_path / "x.h5/a"))
    list_arrays(str(tmp_path / "x.h5"))


def test_virtual_dataset_in_its_own_file(tmp_path):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(".", "inner", (3,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["inner"] = np.arange(3.0)
        file.create_virtual_dataset("a", layout)
        file["link"] = h5py.SoftLink("/a")
    got = open_source(str(tmp_path / "x.h5/link")).read(whole((3,)))
    assert got.tolist() == [0, 1, 2]


def test_zarr_never_leaves_its_store(tmp_path):
    zarr.create_array(tmp_path / "secret.zarr", data=np.full(3, 4242.5))
    zarr.create_group(tmp_path / "x.zarr")
    (tmp_path / "x.zarr/a").symlink_to(tmp_path / "secret.zarr")
    with pytest.raises(SafetyError, match="out of the store"):
        open_source(str(tmp_path / "x.zarr/a"))


def test_file_cut_while_it_is_read(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    source = open_source(str(tmp_path / "x.npy"))
    os.truncate(tmp_path / "x.npy", 500)
    with pytest.raises(InputError, match="ended at byte"):
        source.read(whole(VALUES.shape))


def test_damaged_chunks_name_the_array(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", data=VALUES, chunks=VALUES.shape)
    del array
    (tmp_path / "x.zarr/c/0/0/0").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"x\.zarr at \(0, 0, 0\)"):
        open_source(str(tmp_path / "x.zarr")).read(whole(VALUES.shape))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("a", data=VALUES, chunks=VALUES.shape, fletcher32=True)
        place = data.id.get_chunk_info(0).byte_offset
    with open(tmp_path / "x.h5", "r+b") as raw:
        raw.seek(place + 100)
        raw.write(b"\xff\xff")
    with pytest.raises(InputError, match=r"x\.h5/a at"):
        open_source(str(tmp_path / "x.h5")).read(whole(VALUES.shape))


class TestStream:
    def test_cut(self):
        data = npy_bytes()
        source = NpyStreamSource(io.BytesIO(data[:-100]))
        with pytest.raises(InputError, match="ended after 3020 of 3120 bytes"):
            list(map(source.read, Grid(VALUES.shape, (4, 6, 10))))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty"),
            (npy_bytes(np.asfortranarray(VALUES)), "Fortran"),
            (npy_bytes(np.zeros(3, complex)), "complex"),
        ],
    )
    def test_unsuitable(self, data, message):
        with pytest.raises(InputError, match=message):
            NpyStreamSource(io.BytesIO(data))

    def test_not_joined(self):
        with pytest.raises(UsageError, match="pipe"):
            open_joined(["-", "x.npy"])


class TestJoined:
    @pytest.mark.parametrize(
        "other", [np.zeros((3, 6, 9), "f4"), np.zeros((3, 6), "f4"), np.zeros((3, 6, 10), "f8")]
    )
    def test_unlike(self, tmp_path, other):
        np.save(tmp_path / "a.npy", VALUES)
        np.save(tmp_path / "b.npy", other)
        with pytest.raises(InputError, match=r"a\.npy .* b\.npy|a\.npy .*b\.npy"):
            open_joined([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")])


class TestOutputs:
    @pytest.mark.parametrize(
        "name", ["x", "x.txt", "s3://bucket/x.npy", "x.npy/y", "x.h5/../y", ""]
    )
    def test_names(self, name):
        with pytest.raises(UsageError):
            make_sink(name, {"": INFO})

    @pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr", "x.npz"])
    def test_missing_folder(self, tmp_path, name):
        with pytest.raises(OutputError, match="does not exist"):
            make_sink(str(tmp_path / "no" / name), {"": INFO})

    def test_unreadable_container_is_not_replaced(self, tmp_path):
        (tmp_path / "x.h5").write_bytes(b"precious")
        with pytest.raises(UsageError, match="cannot be read"):
            make_sink(str(tmp_path / "x.h5"), {"": INFO}, overwrite=True)


class TestRefuseSame:
    def test_same_file_by_any_name(self, tmp_path):
        np.save(tmp_path / "x.npy", VALUES)
        (tmp_path / "link.npy").symlink_to("x.npy")
        os.link(tmp_path / "x.npy", tmp_path / "hard.npy")
        (tmp_path / "folder").symlink_to(".")
        for name in ("x.npy", "link.npy", "hard.npy", "folder/x.npy"):
            with pytest.raises(UsageError, match="is the input"):
                refuse_same(str(tmp_path / name), [str(tmp_path / "x.npy")])
        refuse_same(str(tmp_path / "y.npy"), [str(tmp_path / "x.npy"), "-"])
        refuse_same("-", [str(tmp_path / "x.npy")])

    def test_containers(self, tmp_path):
        zarr.create_array(tmp_path / "x.zarr", name="a", shape=(3,), dtype="f4")
        source = str(tmp_path / "x.zarr/a")
        for name in ("x.zarr", "x.zarr/b", "x.zarr/a/deeper"):
            with pytest.raises(UsageError, match="same container"):
                refuse_same(str(tmp_path / name), [source])
        np.save(tmp_path / "x.zarr/a.npy", VALUES)
        (tmp_path / "store").symlink_to("x.zarr")
        with pytest.raises(UsageError, match="inside"):
            refuse_same(str(tmp_path / "store/b.npy"), [source])
        (tmp_path / "big.zarr").mkdir()
        np.save(tmp_path / "big.zarr/in.npy", VALUES)
        with pytest.raises(UsageError, match="contains"):
            refuse_same(str(tmp_path / "big.zarr"), [str(tmp_path / "big.zarr/in.npy")])
