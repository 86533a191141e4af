"""Arrays in every storage, written by the reference libraries, and blocks to try on them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from zarr.registry import get_pipeline_class

from normcli.arrays.access import ArraySource
from normcli.arrays.joined import JoinedSource
from normcli.arrays.opening import open_source
from normcli.arrays.stream import NpyStreamSource
from normcli.domain.grid import Block

SHAPE = (13, 6, 10)
VALUES = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)

Made = tuple[ArraySource, np.ndarray]


def block(start: tuple[int, ...], stop: tuple[int, ...]) -> Block:
    return Block(0, start, stop)


def whole(shape: tuple[int, ...]) -> Block:
    return Block(0, (0,) * len(shape), tuple(shape))


def hide_zarrs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as if zarrs were not installed."""
    get_pipeline_class()  # zarr itself loads what is registered, once
    monkeypatch.setitem(sys.modules, "zarrs", None)


def npy_c(folder: Path) -> Made:
    np.save(folder / "c.npy", VALUES)
    return open_source(str(folder / "c.npy")), VALUES


def npy_f(folder: Path) -> Made:
    np.save(folder / "f.npy", np.asfortranarray(VALUES))
    return open_source(str(folder / "f.npy")), VALUES


def npy_big(folder: Path) -> Made:
    np.save(folder / "big.npy", VALUES.astype(">f4"))
    return open_source(str(folder / "big.npy")), VALUES


def npy_bool(folder: Path) -> Made:
    np.save(folder / "bool.npy", VALUES > 0)
    return open_source(str(folder / "bool.npy")), VALUES > 0


def npz_stored(folder: Path) -> Made:
    np.savez(folder / "a.npz", x=VALUES, other=np.arange(4))
    return open_source(str(folder / "a.npz/x")), VALUES


def npz_packed(folder: Path) -> Made:
    np.savez_compressed(folder / "p.npz", x=np.asfortranarray(VALUES.astype(">f8")))
    return open_source(str(folder / "p.npz/x")), VALUES.astype("f8")


def hdf5_contiguous(folder: Path) -> Made:
    with h5py.File(folder / "plain.h5", "w") as file:
        file["group/x"] = VALUES
    return open_source(str(folder / "plain.h5/group/x")), VALUES


def hdf5_gzip(folder: Path) -> Made:
    with h5py.File(folder / "gzip.h5", "w") as file:
        file.create_dataset(
            "x", data=VALUES.astype(">f4"), chunks=(4, 6, 5), compression="gzip", shuffle=True
        )
    return open_source(str(folder / "gzip.h5")), VALUES


def hdf5_bool(folder: Path) -> Made:
    with h5py.File(folder / "bool.h5", "w") as file:
        file["x"] = VALUES > 0
    return open_source(str(folder / "bool.h5")), VALUES > 0


def zarr_2(folder: Path) -> Made:
    array = zarr.create_array(
        folder / "two.zarr", shape=SHAPE, chunks=(4, 6, 5), dtype=">f4", zarr_format=2, order="F"
    )
    array[...] = VALUES
    return open_source(str(folder / "two.zarr")), VALUES


def zarr_2_native(folder: Path) -> Made:
    array = zarr.create_array(
        folder / "native.zarr", shape=SHAPE, chunks=(4, 6, 5), dtype="f8", zarr_format=2
    )
    array[...] = VALUES.astype("f8")
    return open_source(str(folder / "native.zarr")), VALUES.astype("f8")


def zarr_3(folder: Path) -> Made:
    array = zarr.create_array(
        folder / "three.zarr",
        name="group/x",
        shape=SHAPE,
        chunks=(4, 6, 5),
        dtype="f4",
        serializer={"name": "bytes", "configuration": {"endian": "big"}},
    )
    array[...] = VALUES
    return open_source(str(folder / "three.zarr/group/x")), VALUES


def zarr_sharded(folder: Path) -> Made:
    array = zarr.create_array(
        folder / "sharded.zarr", shape=SHAPE, chunks=(2, 3, 5), shards=(4, 6, 10), dtype="i2"
    )
    integers = (VALUES * 1000).astype("i2")
    array[...] = integers
    return open_source(str(folder / "sharded.zarr")), integers


def joined(folder: Path) -> Made:
    np.save(folder / "1.npy", VALUES[:5])
    np.save(folder / "2.npy", VALUES[5:5])
    np.save(folder / "3.npy", np.asfortranarray(VALUES[5:6].astype(">f4")))
    with h5py.File(folder / "4.h5", "w") as file:
        file["x"] = VALUES[6:]
    names = ["1.npy", "2.npy", "3.npy", "4.h5"]
    return JoinedSource([open_source(str(folder / name)) for name in names], 0), VALUES


def joined_inner_axis(folder: Path) -> Made:
    np.save(folder / "left.npy", VALUES[:, :2])
    np.save(folder / "right.npy", VALUES[:, 2:])
    names = ["left.npy", "right.npy"]
    return JoinedSource([open_source(str(folder / name)) for name in names], 1), VALUES


def stream(folder: Path) -> Made:
    buffer = io.BytesIO()
    np.save(buffer, VALUES.astype(">f4"))
    return NpyStreamSource(io.BytesIO(buffer.getvalue())), VALUES


SOURCES: dict[str, Callable[[Path], Made]] = {
    make.__name__: make
    for make in (
        npy_c,
        npy_f,
        npy_big,
        npy_bool,
        npz_stored,
        npz_packed,
        hdf5_contiguous,
        hdf5_gzip,
        hdf5_bool,
        zarr_2,
        zarr_2_native,
        zarr_3,
        zarr_sharded,
        joined,
        joined_inner_axis,
    )
}
