"""Outputs in every storage, made by the sinks, with their manifests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.manifest import Manifest, manifest_path, write_manifest
from normcli.arrays.opening import make_sink
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block, Grid
from normcli.domain.moments import Moments

SHAPE = (13, 6, 10)
VALUES = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)
F4 = np.dtype("f4")
CHUNKS = (4, 6, 5)


def hdf5(**codecs) -> ArrayInfo:
    return ArrayInfo(SHAPE, F4, chunks=CHUNKS, storage="hdf5", codecs=codecs)


def zarr(**codecs) -> ArrayInfo:
    return ArrayInfo(SHAPE, F4, chunks=CHUNKS, storage="zarr", codecs=codecs)


ZLIB = {"zarr_format": 2, "compressors": [{"id": "zlib", "level": 3}]}
# Neither the shards nor the chunks divide the shape.
SHARDED = ArrayInfo(SHAPE, F4, chunks=(2, 3, 5), shards=(4, 6, 10), storage="zarr")

OUTPUTS: dict[str, tuple[str, ArrayInfo]] = {
    "npy": ("x.npy", ArrayInfo(SHAPE, F4)),
    "npy_f_big": ("x.npy", ArrayInfo(SHAPE, np.dtype(">f4"), fortran_order=True)),
    "npz": ("x.npz/x", ArrayInfo(SHAPE, F4)),
    "hdf5_contiguous": ("x.h5/a/x", ArrayInfo(SHAPE, F4, storage="hdf5")),
    "hdf5_chunked": ("x.h5", hdf5()),
    "hdf5_gzip": ("x.h5", hdf5(compression="gzip", shuffle=True)),
    "hdf5_lzf": ("x.h5", hdf5(compression="lzf")),
    "zarr_2": ("x.zarr", zarr(zarr_format=2, compressors=[])),
    "zarr_2_zlib": ("x.zarr", zarr(**ZLIB)),
    "zarr_3": ("x.zarr/a/x", zarr()),
    "zarr_sharded": ("x.zarr", SHARDED),
}


def blocks(info: ArrayInfo) -> list[Block]:
    return list(Grid(info.shape, info.write_unit or (4, 3, 10)))


def moments(values: np.ndarray) -> Moments:
    x = values.astype("f8")
    found = (x.size, x.mean(), ((x - x.mean()) ** 2).sum(), x.min(), x.max(), 0)
    return Moments(*map(np.asarray, found))


def make(folder: Path, case: str, manifest: bool = True) -> Path:
    """Write one output and return its path."""
    text, info = OUTPUTS[case]
    sink = make_sink(str(folder / text), {"": info})
    sink.create()
    parts: list[StoredPart] = []
    for block in blocks(info):
        parts += sink.write("", block, VALUES[block.slices])
    sink.annotate({"a": 1})
    parts += sink.seal()
    sink.publish()
    if manifest:
        (inner,) = sink.inside
        written = {inner: moments(VALUES)}
        found = Manifest.of(sink.container, sink.inside, parts, written, "0")
        write_manifest(manifest_path(sink.name), found)
    return Path(sink.name)


def tree(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of every file of a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
