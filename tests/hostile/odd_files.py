"""Files that are odd, but valid: each is read, and its mean and variance are the right ones."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import zarr

# Values are whole numbers, so that every type holds them, and 0 to 1 for booleans.
VALUES = np.random.default_rng(17).integers(0, 90, (23, 5))
Made = tuple[str, np.ndarray]
Make = Callable[[Path], Made]
ODD: dict[str, Make] = {}
NUMBERS = ("?", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "u8", "<f2", ">f2", ">f4", "<f8", ">f8")


def odd(name: str) -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        assert name not in ODD, name
        ODD[name] = make
        return make

    return add


def of(dtype: Any) -> np.ndarray:
    return (VALUES % 2 if np.dtype(dtype) == bool else VALUES).astype(dtype)


def npy(values: np.ndarray, version: tuple[int, int] | None = None, file: str = "x.npy") -> Make:
    def make(folder: Path) -> Made:
        with open(folder / file, "wb") as opened:
            np.lib.format.write_array(opened, values, version, allow_pickle=False)
        return f"./{file}", values

    return make


for dtype, order in itertools.product(NUMBERS, "CF"):
    ODD[f"npy {dtype} {order}"] = npy(np.array(of(dtype), order=order))
for place in (1, 2, 3):
    ODD[f"npy version {place}"] = npy(of("f4"), (place, 0))
for number, name in enumerate(
    (
        "two words.npy",
        "-rf.npy",
        "[red]x[red].npy",
        "a\nb.npy",
        "%s{0}.npy",
        "\u202egnp.npy",
        "x.NPY",
    )
):
    ODD[f"npy name {number}"] = npy(of("f4"), file=name)
ODD["npy of one row"] = npy(of("f8")[:1])
ODD["npy of one column"] = npy(of("f8")[:, :1])
ODD["npy of five axes"] = npy(of("f4")[:20].reshape(2, 2, 5, 1, 5))


@odd("npy, header of no spaces")
def _(folder: Path) -> Made:
    values = of("<f4")
    text = b"{'shape':(23,5),'fortran_order':False,'descr':'<f4'}\n"
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (folder / "x.npy").write_bytes(head + values.tobytes())
    return "x.npy", values


@odd("npy, header of Python 2")
def _(folder: Path) -> Made:
    values = of("<f4")
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (23L, 5L), }".ljust(117) + b"\n"
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (folder / "x.npy").write_bytes(head + values.tobytes())
    return "x.npy", values


def npz(member: str, dtype: str, method: int, before: bytes = b"") -> Make:
    def make(folder: Path) -> Made:
        buffer = io.BytesIO()
        np.save(buffer, of(dtype))
        with open(folder / "x.npz", "wb") as file:
            file.write(before)
            with zipfile.ZipFile(file, "a", method) as archive:
                archive.writestr(f"{member}.npy", buffer.getvalue())
                archive.writestr("notes.txt", "beside it")
        return "x.npz", of(dtype)

    return make


for method, label in ((zipfile.ZIP_STORED, "stored"), (zipfile.ZIP_DEFLATED, "packed")):
    for dtype in (">f4", "u8", "<f8"):
        ODD[f"npz {label} {dtype}"] = npz("a", dtype, method)
ODD["npz bzip2"] = npz("a", "<f4", zipfile.ZIP_BZIP2)
ODD["npz lzma"] = npz("a", "<f4", zipfile.ZIP_LZMA)
ODD["npz member of two words"] = npz("two words", "<f4", zipfile.ZIP_STORED)
ODD["npz member that leads up"] = npz("../../up", "<f4", zipfile.ZIP_STORED)
ODD["npz member with a colour"] = npz("\x1b[31mred", "<f4", zipfile.ZIP_DEFLATED)


def hdf5(
    dtype: Any = "<f4", name: str = "a", opening: dict[str, Any] | None = None, **options: Any
) -> Make:
    def make(folder: Path) -> Made:
        values = of(dtype)
        with h5py.File(folder / "x.h5", "w", **(opening or {})) as file:
            file.create_dataset(name, data=values, **options)
        return f"x.h5/{name}", values

    return make


for dtype in NUMBERS:
    ODD[f"hdf5 {dtype}"] = hdf5(dtype)
    ODD[f"hdf5 gzip {dtype}"] = hdf5(dtype, chunks=(7, 2), compression="gzip", shuffle=True)
for size in (512, 4096):
    ODD[f"hdf5 user block {size}"] = hdf5(opening={"userblock_size": size})
    ODD[f"hdf5 user block {size}, gzip"] = hdf5(
        opening={"userblock_size": size}, chunks=(7, 2), compression="gzip"
    )
for version in ("earliest", "v108", "v110", "latest"):
    ODD[f"hdf5 {version}"] = hdf5(opening={"libver": version}, chunks=(7, 2), fletcher32=True)
for number, name in enumerate(
    ("two words", "-rf", "[red]x[/red]", "a\nb", "g/h/i", "%n", "\u202ex", ".hidden", "x.npy")
):
    ODD[f"hdf5 name {number}"] = hdf5(name=name)


@odd("hdf5 names of no UTF-8")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        group = h5py.h5g.create(file.id, b"gr\xfcn")
        space = h5py.h5s.create_simple((23, 5))
        made = h5py.h5d.create(group, b"\xe4", h5py.h5t.IEEE_F32LE, space)
        h5py.Dataset(made)[...] = of("f4")
    return "x.h5", of("f4")


ODD["hdf5 unlimited"] = hdf5(maxshape=(None, None), chunks=(4, 4))
ODD["hdf5 lzf"] = hdf5(chunks=(7, 2), compression="lzf")
ODD["hdf5 chunks beyond the array"] = hdf5(chunks=(64, 64), maxshape=(None, None))
ODD["hdf5 scale-offset"] = hdf5("<i4", chunks=(7, 2), scaleoffset=0)
ODD["hdf5 in creation order"] = hdf5(opening={"track_order": True})
ODD["hdf5 in pages"] = hdf5(opening={"fs_strategy": "page"}, chunks=(7, 2), compression="gzip")


@odd("hdf5 grown")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("a", data=of("f4")[:9], maxshape=(None, 5), chunks=(4, 3))
        data.resize((23, 5))
        data[9:] = of("f4")[9:]
    return "x.h5", of("f4")


@odd("hdf5 shrunk")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("a", data=of("f4"), maxshape=(None, None), chunks=(4, 3))
        data.resize((10, 4))
    return "x.h5", of("f4")[:10, :4]


@odd("hdf5 compact")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((23, 5))
        made = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32BE, space, plist)
        h5py.Dataset(made)[...] = of("f4")
    return "x.h5", of("f4")


@odd("hdf5 virtual, over itself")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        file["g/own"] = of("f4")
        layout = h5py.VirtualLayout((23, 5), "f4")
        layout[:] = h5py.VirtualSource(".", "g/own", (23, 5))
        file.create_virtual_dataset("a", layout)
    return "x.h5/a", of("f4")


@odd("hdf5 soft and hard links")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        file["g/own"] = of("f4")
        file["hard"] = file["g"]
        file["soft"] = h5py.SoftLink("hard/own")
    return "x.h5/soft", of("f4")


@odd("hdf5 of 12 bits in 16")
def _(folder: Path) -> Made:
    with h5py.File(folder / "x.h5", "w") as file:
        kind = h5py.h5t.STD_U16LE.copy()
        kind.set_precision(12)
        made = h5py.h5d.create(file.id, b"a", kind, h5py.h5s.create_simple((23, 5)))
        h5py.Dataset(made)[...] = of("u2")
    return "x.h5", of("u2")


@odd("matlab 7.3")
def _(folder: Path) -> Made:
    """A user block of text, an array turned around, and a class in its attributes."""
    with h5py.File(folder / "x.h5", "w", userblock_size=512) as file:
        data = file.create_dataset("a", data=of("f8").T, chunks=(5, 7), compression="gzip")
        data.attrs["MATLAB_class"] = np.bytes_("double")
    with open(folder / "x.h5", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return "x.h5/a", of("f8").T


@odd("netcdf of packed integers")
def _(folder: Path) -> Made:
    """What is stored counts: 16 bits, with the scale that unpacks them in an attribute."""
    with h5py.File(folder / "x.nc", "w") as file:
        for place, (name, size) in enumerate((("time", 23), ("band", 5))):
            file[name] = np.arange(float(size))
            file[name].make_scale(name)
            file[name].attrs["_Netcdf4Dimid"] = np.int32(place)
        data = file.create_dataset("a", data=of("<i2"), chunks=(7, 5))
        data.attrs.update(scale_factor=0.5, add_offset=3.0, units="K")
        for axis, name in enumerate(("time", "band")):
            data.dims[axis].attach_scale(file[name])
    return "x.nc/a", of("<i2")


def store(version: int, dtype: Any = "<f4", name: str | None = None, **options: Any) -> Make:
    def make(folder: Path) -> Made:
        values = of(dtype)
        options.setdefault("chunks", (7, 2))
        if version == 3 and np.dtype(dtype).byteorder == ">":
            options["serializer"] = zarr.codecs.BytesCodec(endian="big")
        zarr.create_array(folder / "x.zarr", name=name, data=values, zarr_format=version, **options)
        return f"x.zarr/{name}" if name else "x.zarr", values

    return make


for version, dtype in itertools.product((2, 3), NUMBERS):
    ODD[f"zarr {version} {dtype}"] = store(version, dtype)
for label, codec in {
    "none": None,
    "gzip": zarr.codecs.GzipCodec(),
    "blosc lz4": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
    "blosc zlib": zarr.codecs.BloscCodec(cname="zlib"),
    "zstd of checksums": zarr.codecs.ZstdCodec(checksum=True),
    "crc32c": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
}.items():
    ODD[f"zarr 3 {label}"] = store(3, compressors=codec)
    ODD[f"zarr 3 {label}, sharded"] = store(3, compressors=codec, chunks=(5, 2), shards=(10, 4))
for label, codec in {
    "none": None,
    "zlib": numcodecs.Zlib(),
    "lz4": numcodecs.LZ4(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "blosc": numcodecs.Blosc(shuffle=2),
}.items():
    ODD[f"zarr 2 {label}"] = store(2, compressors=codec)
for version in (2, 3):
    ODD[f"zarr {version} in order F"] = store(version, order="F")
    ODD[f"zarr {version}, chunks beyond the array"] = store(version, chunks=(64, 64))
    ODD[f"zarr {version} in groups"] = store(version, name="g/h/a")
    ODD[f"zarr {version} of two words"] = store(version, name="two words/[red]")
ODD["zarr 2, slashes in keys"] = store(2, chunk_key_encoding={"name": "v2", "separator": "/"})
ODD["zarr 3, dots in keys"] = store(3, chunk_key_encoding={"name": "default", "separator": "."})
ODD["zarr 3, keys of 2"] = store(3, chunk_key_encoding={"name": "v2", "separator": "."})
ODD["zarr 3, named axes"] = store(3, dimension_names=["N", None])
ODD["zarr 3, transposed"] = store(3, filters=[zarr.codecs.TransposeCodec(order=(1, 0))])
ODD["zarr 2, delta"] = store(2, "<i4", filters=[numcodecs.Delta("<i4")])


@odd("zarr 3 that fills with NaN")
def _(folder: Path) -> Made:
    values = of("f4")
    made = zarr.create_array(
        folder / "x.zarr", shape=(23, 5), chunks=(7, 5), dtype="f4", fill_value=np.nan
    )
    made[...] = values
    return "x.zarr", values


@odd("zarr 3, index of shards at their begin")
def _(folder: Path) -> Made:
    zarr.create_array(
        folder / "x.zarr",
        data=of("f4"),
        chunks=(10, 4),
        serializer=zarr.codecs.ShardingCodec(chunk_shape=(5, 2), index_location="start"),
        compressors=None,
        filters=None,
    )
    return "x.zarr", of("f4")


@odd("zarr 3 of consolidated metadata")
def _(folder: Path) -> Made:
    made = store(3, name="a")(folder)
    zarr.consolidate_metadata(str(folder / "x.zarr"))
    return made
