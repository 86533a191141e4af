"""Small sound files of each format, and mutations of their bytes by fixed seeds."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import zarr

VALUES = np.random.default_rng(11).normal(10, 3, (24, 5)).astype("f4")


def npy(folder: Path) -> str:
    np.save(folder / "x.npy", VALUES)
    return "x.npy"


def npz(folder: Path) -> str:
    np.savez_compressed(folder / "x.npz", a=VALUES)
    return "x.npz"


def npz_stored(folder: Path) -> str:
    np.savez(folder / "x.npz", a=VALUES)
    return "x.npz"


def hdf5(folder: Path) -> str:
    """Attributes, strings of any length and records beside a dataset without checksums."""
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("a", data=VALUES, chunks=(8, 5), compression="gzip")
        data.attrs["units"] = "K"
        data.attrs["names"] = ["one", "two"]
        data.attrs["pair"] = np.array((1, 2.0), [("p", "i4"), ("q", "f8")])
        data.dims[0].label = "time"
        file.create_dataset("group/names", data=["x", "yy"])
        file["soft"] = h5py.SoftLink("/a")
        file.attrs["title"] = "seed"
    return "x.h5/a"


def hdf5_checked(folder: Path) -> str:
    """Checksums over metadata and chunks."""
    with h5py.File(folder / "x.h5", "w", libver="latest") as file:
        file.create_dataset(
            "a", data=VALUES, chunks=(8, 5), compression="gzip", shuffle=True, fletcher32=True
        )
    return "x.h5/a"


def registered(filters: Mapping[str, Any], folder: Path) -> str:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("a", data=VALUES, chunks=(8, 5), **filters)
    return "x.h5/a"


def hdf5_lzf(folder: Path) -> str:
    return registered({"compression": "lzf", "shuffle": True}, folder)


def hdf5_blosc(folder: Path) -> str:
    return registered(hdf5plugin.Blosc(cname="lz4"), folder)


def hdf5_blosc_zlib(folder: Path) -> str:
    return registered(hdf5plugin.Blosc(cname="zlib", shuffle=2), folder)


def hdf5_lz4(folder: Path) -> str:
    return registered(hdf5plugin.LZ4(nbytes=64), folder)


def hdf5_bitshuffle(folder: Path) -> str:
    return registered(hdf5plugin.Bitshuffle(), folder)


def hdf5_bitshuffle_zstd(folder: Path) -> str:
    return registered(hdf5plugin.Bitshuffle(cname="zstd"), folder)


def hdf5_zstd(folder: Path) -> str:
    return registered(hdf5plugin.Zstd(), folder)


def zarr_3(folder: Path) -> str:
    zarr.create_array(folder / "x.zarr", data=VALUES, chunks=(8, 5))
    return "x.zarr"


def zarr_checked(folder: Path) -> str:
    """A checksum over each chunk and each index of a shard."""
    zarr.create_array(
        folder / "x.zarr",
        data=VALUES,
        chunks=(4, 5),
        shards=(8, 5),
        compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
    )
    return "x.zarr"


def zarr_2(folder: Path) -> str:
    zarr.create_array(folder / "x.zarr", data=VALUES, chunks=(8, 5), zarr_format=2)
    return "x.zarr"


def zarr_blosc(folder: Path) -> str:
    zarr.create_array(
        folder / "x.zarr", data=VALUES, chunks=(8, 5), compressors=zarr.codecs.BloscCodec()
    )
    return "x.zarr"


def zarr_blosc_sharded(folder: Path) -> str:
    zarr.create_array(
        folder / "x.zarr",
        data=VALUES,
        chunks=(4, 5),
        shards=(8, 5),
        compressors=zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
    )
    return "x.zarr"


def zarr_gzip(folder: Path) -> str:
    zarr.create_array(
        folder / "x.zarr", data=VALUES, chunks=(8, 5), compressors=zarr.codecs.GzipCodec()
    )
    return "x.zarr"


def zarr_lz4(folder: Path) -> str:
    zarr.create_array(
        folder / "x.zarr", data=VALUES, chunks=(8, 5), zarr_format=2, compressors=numcodecs.LZ4()
    )
    return "x.zarr"


FORMATS: dict[str, tuple[Callable[[Path], str], ...]] = {
    "npy": (npy,),
    "npz": (npz, npz_stored),
    "hdf5": (hdf5, hdf5_checked, hdf5_lzf),
    "hdf5 with registered filters": (
        hdf5_blosc,
        hdf5_blosc_zlib,
        hdf5_lz4,
        hdf5_bitshuffle,
        hdf5_bitshuffle_zstd,
        hdf5_zstd,
    ),
    "zarr": (
        zarr_3,
        zarr_checked,
        zarr_2,
        zarr_blosc,
        zarr_blosc_sharded,
        zarr_gzip,
        zarr_lz4,
    ),
}
# Where each byte of the elements is under a checksum, and so may never change unnoticed.
CHECKED = {npz, npz_stored, hdf5_checked, zarr_checked}


class Seed:
    """A sound file in memory, from which mutants are written.

    Parameters
    ----------
    make : callable
        Writes it.
    folder : Path
        Where it is written, and each mutant after it.
    """

    def __init__(self, make: Callable[[Path], str], folder: Path) -> None:
        self.make = make
        self.name = make(folder)
        self.root = folder / self.name.split("/")[0]
        if self.root.is_dir():
            self.files = {p: p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}
        else:
            self.files = {self.root: self.root.read_bytes()}

    def mutate(self, number: int) -> tuple[Path, bytes]:
        """Write the mutant of a number; return which file of it was changed, and into what."""
        chance = random.Random(f"{self.make.__name__} {number}")
        # Documents and chunks alike, however many chunks there are.
        path = chance.choice([p for p in self.files if "zarr" in p.name] * 2 + [*self.files])
        data = bytearray(self.files[path])
        kind = chance.random()
        if kind < 0.08:
            del data[chance.randrange(len(data) + 1) :]
        elif kind < 0.12:
            place = chance.randrange(len(data))
            data[place:place] = chance.randbytes(chance.choice((1, 4, 64)))
        else:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                place = chance.randrange(len(data))
                how = chance.random()
                if how < 0.5:
                    data[place] ^= 1 << chance.randrange(8)
                elif how < 0.8:
                    data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
                else:
                    data[place] = chance.randrange(256)
        self.restore()
        path.write_bytes(data)
        return path, bytes(data)

    def restore(self) -> None:
        """Write the sound file again."""
        if self.root.is_dir():
            shutil.rmtree(self.root)
        for path, data in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
