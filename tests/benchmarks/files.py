"""fit and apply on files beside plain readers, dask.array, xarray and h5py: F1 to F3, A1 to A4."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

import normcli
from tests.benchmarks.harness import Comparison, Scale, Work

BLOCK = 16 << 20
LAYOUT = {"layout": "NCHW"}


def comparisons(scale: Scale) -> Iterator[Comparison]:
    """Yield the comparisons of whole runs on page-cached files."""
    files = Files(scale)
    yield from _fit_contiguous(files)
    yield from _fit_zarr(files)
    yield from _fit_gzip(files)
    yield from _apply_zarr(files)
    yield from _apply_gzip(files)
    yield from _apply_two_passes(files)
    yield from _apply_npy(files)


class Files:
    """The arrays of the benchmarks, made when they are first asked for."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.folder = scale.folder
        observations = max(8, scale.nbytes // (8 * 64 * 64 * 4) // 8 * 8)
        self.shape = (observations, 8, 64, 64)
        self.chunks = (min(32, observations), 8, 64, 64)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * 4

    def values(self) -> np.ndarray:
        """Measurements with two decimals, which compress about as real ones; no chunk repeats."""
        rng = np.random.default_rng(0)
        values = np.empty(self.shape, np.float32)
        for first in range(0, self.shape[0], 8):
            values[first : first + 8] = np.round(rng.normal(280, 12, values[:8].shape), 2)
        return values

    def npy(self) -> Path:
        path = self.folder / "x.npy"
        if not path.exists():
            np.save(path, self.values())
        return path

    def hdf5(self, name: str, **options: Any) -> Path:
        path = self.folder / f"{name}.h5"
        if not path.exists():
            with h5py.File(path, "w") as file:
                file.create_dataset("x", data=self.values(), **options)
        return path

    def gzip(self) -> Path:
        chunks = (8, *self.shape[1:])
        return self.hdf5("gzip", chunks=chunks, compression="gzip", shuffle=True)

    def zarr(self, name: str, compressors: Any, shards: tuple[int, ...] | None = None) -> Path:
        chunks = self.chunks if shards is None else (self.chunks[0] // 4, *self.chunks[1:])
        path = self.folder / f"{name}.zarr"
        if not path.exists():
            array = zarr.create_array(
                path,
                shape=self.shape,
                chunks=chunks,
                shards=shards,
                dtype="f4",
                compressors=compressors,
            )
            array[...] = self.values()
        return path

    def lz4(self) -> Path:
        return self.zarr("lz4", zarr.codecs.BloscCodec(cname="lz4", clevel=5))

    def sharded(self) -> Path:
        codec = zarr.codecs.BloscCodec(cname="lz4", clevel=5)
        return self.zarr("sharded", codec, shards=self.chunks)

    def plain(self) -> Path:
        return self.zarr("plain", None)

    def out(self, name: str) -> Path:
        return self.folder / "out" / name

    def clear(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        (self.folder / "out").mkdir()


def _fit(path: Path | str) -> Work:
    return lambda: normcli.fit(str(path), **LAYOUT)


def _fit_contiguous(files: Files) -> Iterator[Comparison]:
    npy = files.npy()
    contiguous = files.hdf5("contiguous")

    def read() -> None:
        descriptor = os.open(npy, os.O_RDONLY)
        buffers = [bytearray(BLOCK) for _ in range(files.scale.threads)]

        def part(number: int) -> None:
            size = files.nbytes // files.scale.threads
            begin = number * size
            for offset in range(begin, begin + size, BLOCK):
                os.preadv(descriptor, [buffers[number]], offset)

        with ThreadPoolExecutor(files.scale.threads) as pool:
            list(pool.map(part, range(files.scale.threads)))
        os.close(descriptor)

    def load() -> None:
        values = np.load(npy)
        values.mean(axis=(0, 2, 3), dtype=np.float64)
        values.var(axis=(0, 2, 3), dtype=np.float64)

    for path in (npy, contiguous):
        work = f"fit, {'NPY' if path is npy else 'contiguous HDF5'}"
        yield Comparison("F1", work, _fit(path), "read on 2 threads", read, 0.7, files.nbytes)
    yield Comparison("F1", "fit, NPY", _fit(npy), "numpy load+mean+var", load, 5, files.nbytes)


def _zarr_read(path: Path, files: Files) -> Work:
    def read() -> None:
        array = zarr.open_array(path, mode="r")
        step = files.chunks[0]
        with ThreadPoolExecutor(files.scale.threads) as pool:
            list(pool.map(lambda i: array[i : i + step], range(0, files.shape[0], step)))

    return read


def _dask_moments(path: Path) -> Work:
    import dask.array

    def call() -> None:
        x = dask.array.from_zarr(str(path))
        dask.compute(x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3)), scheduler="threads")

    return call


def _fit_zarr(files: Files) -> Iterator[Comparison]:
    stores = {"uncompressed": files.plain(), "blosc-lz4": files.lz4(), "sharded": files.sharded()}
    for name, path in stores.items():
        read, dask = _zarr_read(path, files), _dask_moments(path)
        work, ours = f"fit, {name} Zarr", _fit(path)
        yield Comparison("F2", work, ours, "zarr-python read", read, 0.75, files.nbytes)
        yield Comparison("F2", work, ours, "dask.array mean+var", dask, 3, files.nbytes)


def _fit_gzip(files: Files) -> Iterator[Comparison]:
    path = files.gzip()

    def read() -> None:
        with h5py.File(path) as file:
            data = file["x"]
            for i in range(0, files.shape[0], 8):
                data[i : i + 8]

    ours = _fit(f"{path}/x")
    yield Comparison("F3", "fit, gzip HDF5", ours, "h5py read", read, 1.8, files.nbytes)


def _apply(files: Files, path: Path, name: str, stats: Any) -> Work:
    return lambda: normcli.apply(
        str(path), str(files.out(name)), stats=stats, stats_out=False, overwrite=True, **LAYOUT
    )


def _apply_zarr(files: Files) -> Iterator[Comparison]:
    for name, path in (("uncompressed", files.plain()), ("blosc-lz4", files.lz4())):
        stats = normcli.fit(str(path), **LAYOUT)
        source = zarr.open_array(path, mode="r")

        def copy(source: Any = source) -> None:
            target = zarr.create_array(
                files.out("copy.zarr"),
                shape=source.shape,
                chunks=source.chunks,
                dtype=source.dtype,
                compressors=source.compressors or None,
                overwrite=True,
            )
            step = files.chunks[0]

            def block(i: int) -> None:
                target[i : i + step] = normalized[i : i + step]

            # What is written must compress alike, so the copy writes the normalized values.
            normalized = zarr.open_array(files.out("first.zarr"), mode="r")
            with ThreadPoolExecutor(files.scale.threads) as pool:
                list(pool.map(block, range(0, source.shape[0], step)))

        def before(path: Path = path, stats: Any = stats) -> None:
            if not files.out("first.zarr").exists():
                files.clear()
                _apply(files, path, "first.zarr", stats)()
            for old in ("a1.zarr", "copy.zarr"):
                shutil.rmtree(files.out(old), ignore_errors=True)

        files.clear()
        ours = _apply(files, path, "a1.zarr", stats)
        work = f"apply, {name} Zarr to Zarr"
        yield Comparison("A1", work, ours, "block copy", copy, 0.85, files.nbytes, before)


def _apply_gzip(files: Files) -> Iterator[Comparison]:
    path = files.gzip()
    stats = normcli.fit(f"{path}/x", **LAYOUT)
    mean = stats.mean[:, None, None].astype("f4")
    std = np.sqrt(stats.variance + 1e-5)[:, None, None].astype("f4")

    def peer() -> None:
        with h5py.File(path) as source, h5py.File(files.out("peer.h5"), "w") as target:
            data = source["x"]
            out = target.create_dataset(
                "x", data.shape, data.dtype, chunks=data.chunks, compression="gzip", shuffle=True
            )
            for i in range(0, data.shape[0], 8):
                out[i : i + 8] = (data[i : i + 8] - mean) / std

    ours = _apply(files, Path(f"{path}/x"), "a2.h5", stats)
    work = "apply, gzip HDF5 to gzip HDF5"
    peer_name = "h5py + numpy"
    yield Comparison("A2", work, ours, peer_name, peer, 4, files.nbytes, files.clear)


def _apply_two_passes(files: Files) -> Iterator[Comparison]:
    import dask.array
    import xarray

    path = files.lz4()
    codec = {"compressors": (zarr.codecs.BloscCodec(cname="lz4", clevel=5),)}

    def ours() -> None:
        normcli.apply(
            str(path), str(files.out("a3.zarr")), stats_out=False, mode="batch", layout="NUUU"
        )

    def with_dask() -> None:
        x = dask.array.from_zarr(str(path))
        y = (x - x.mean()) / x.std()
        target = zarr.create_array(
            files.out("dask.zarr"), shape=x.shape, chunks=files.chunks, dtype="f4", **codec
        )
        dask.array.store(y, target, lock=False, scheduler="threads")

    def with_xarray() -> None:
        x = xarray.DataArray(dask.array.from_zarr(str(path)), dims=("n", "c", "h", "w"))
        y = ((x - x.mean()) / x.std()).to_dataset(name="x")
        encoding = {"x": {"chunks": files.chunks, **codec}}
        y.to_zarr(files.out("xarray.zarr"), encoding=encoding, consolidated=False)

    work = "apply without statistics, blosc-lz4 Zarr"
    for name, peer in (("dask.array", with_dask), ("xarray", with_xarray)):
        yield Comparison("A3", work, ours, name, peer, 2, files.nbytes, files.clear)


def _apply_npy(files: Files) -> Iterator[Comparison]:
    path = files.npy()
    stats = normcli.fit(str(path), **LAYOUT)

    def copy() -> None:
        shutil.copyfile(path, files.out("copy.npy"))
        descriptor = os.open(files.out("copy.npy"), os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    ours = _apply(files, path, "a4.npy", stats)
    work = "apply, NPY to NPY"
    yield Comparison("A4", work, ours, "cp, then fsync", copy, 0.6, files.nbytes, files.clear)
