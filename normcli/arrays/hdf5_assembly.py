"""An HDF5 file put together from spools."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from normcli.arrays.hdf5_disk import DiskFile
from normcli.arrays.hdf5_encode import ChunkEncoder
from normcli.arrays.hdf5_layout import VERSIONS, create_dataset
from normcli.arrays.hdf5_places import chunk_key
from normcli.arrays.hdf5_spool import Record, records
from normcli.arrays.part_keys import parse_block_key
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block, Grid
from normcli.errors import OutputError

_Index = dict[str, list[Record]]


def assemble(
    path: Path,
    version: str,
    arrays: Mapping[str, ArrayInfo],
    encoders: Mapping[str, ChunkEncoder],
    attributes: Mapping[str, str],
) -> None:
    """Write the file of a draft from its spools, which stay.

    Parameters
    ----------
    path : Path
        The draft; what an interrupted assembly left there is replaced.
    version : {"1.8", "1.10"}
        The oldest HDF5 that shall read it.
    arrays : mapping of str to ArrayInfo
        The arrays, by their paths in the file.
    encoders : mapping of str to ChunkEncoder
        Those of chunked arrays.
    attributes : mapping of str to str
        Attributes of the root.

    Raises
    ------
    OutputError
        When chunks are missing or damaged, or there is no room for the file.
    OSError
        When the file system refuses.
    """
    index = _index(path)
    for inner, info in arrays.items():
        _require_all(inner, info, encoders.get(inner), index)
    path.unlink(missing_ok=True)
    _require_room(path, index)
    with (
        DiskFile(path, create=True) as disk,
        h5py.File(disk, "w", libver=VERSIONS[version]) as file,
    ):
        for inner, info in arrays.items():
            dataset = create_dataset(file, inner, info)
            if inner in encoders:
                _put_chunks(dataset, inner, index, disk)
            else:
                _put_blocks(dataset, inner, info, index)
        file.attrs.update(attributes)


def _index(path: Path) -> _Index:
    index: _Index = {}
    for record in records(path):
        index.setdefault(record.part.key, []).append(record)
    return index


def _put_chunks(dataset: h5py.Dataset, inner: str, index: _Index, disk: DiskFile) -> None:
    for chunk in Grid(dataset.shape, dataset.chunks):
        if disk.error is not None:
            return
        data, mask = _read(index, chunk_key(inner, chunk.start, dataset.chunks))
        dataset.id.write_direct_chunk(chunk.start, data, mask)


def _put_blocks(dataset: h5py.Dataset, inner: str, info: ArrayInfo, index: _Index) -> None:
    for key, block in _blocks(inner, index):
        data, _ = _read(index, key)
        dataset[block.slices] = data.view(info.dtype).reshape(block.shape)


def _read(index: _Index, key: str) -> tuple[np.ndarray, int]:
    for record in index[key]:
        data = record.read()
        if data is not None:
            return data, record.mask
    raise OutputError(
        f"{key} is not what was written to {index[key][0].path.name}.",
        "Is the storage sound? Start again with --restart.",
    )


def _require_all(inner: str, info: ArrayInfo, encoder: ChunkEncoder | None, index: _Index) -> None:
    if encoder is not None:
        grid = Grid(encoder.shape, encoder.chunks)
        found = sum(chunk_key(inner, c.start, encoder.chunks) in index for c in grid)
        wanted = len(grid)
    else:
        found, wanted = sum(block.size for _, block in _blocks(inner, index)), info.size
    if found != wanted:
        what = "chunks" if encoder is not None else "elements"
        raise OutputError(f"Of {inner}, {found} of {wanted} {what} were written.")


def _blocks(inner: str, index: _Index) -> Iterator[tuple[str, Block]]:
    for key in index:
        parsed = parse_block_key(key)
        if parsed is not None and parsed[0] == inner:
            yield key, parsed[1]


def _require_room(path: Path, index: _Index) -> None:
    needed = sum(found[0].part.nbytes for found in index.values())
    status = os.statvfs(path.parent)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise OutputError(
            f"The file needs {needed} bytes, and {free} are free on the disk of {path.parent}.",
            "Free some space; the same command then goes on from here.",
        )
