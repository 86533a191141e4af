"""Where in an HDF5 file the elements of its arrays are."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import h5py
import numpy as np

from normcli.arrays.hdf5_names import text_of
from normcli.arrays.part_keys import block_key
from normcli.domain.grid import Grid

NOWHERE = -1


def stored_chunks(dataset: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and bytes of each chunk of the grid; `NOWHERE` for one that is not stored."""
    chunks = dataset.chunks
    counts = Grid(dataset.shape, chunks).counts
    offsets = np.full(prod(counts), NOWHERE, np.int64)
    sizes = np.zeros(prod(counts), np.int64)
    last: list[h5py.h5d.StoreInfo] = []

    def keep(info: h5py.h5d.StoreInfo) -> None:
        number = 0
        for start, chunk, count in zip(info.chunk_offset, chunks, counts, strict=True):
            number = number * count + start // chunk
        offsets[number], sizes[number] = info.byte_offset, info.size
        last[:] = [info]

    if hasattr(dataset.id, "chunk_iter"):
        dataset.id.chunk_iter(keep)
        # HDF5 before 1.14.3 counted these in chunks, not in elements.
        if not last or _offset_of(dataset, last[0].chunk_offset) == last[0].byte_offset:
            return offsets, sizes
        offsets[...] = NOWHERE
    for position in range(dataset.id.get_num_chunks()):
        keep(dataset.id.get_chunk_info(position))
    return offsets, sizes


def element_spans(dataset: h5py.Dataset) -> Iterator[tuple[str, int, int]]:
    """Yield key, offset and bytes of each part of a dataset that is stored."""
    inner = text_of(dataset.name).strip("/")
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is not None and dataset.size:
            yield block_key(inner, (0,) * dataset.ndim, dataset.shape), offset, dataset.nbytes
        return
    offsets, sizes = stored_chunks(dataset)
    for chunk in Grid(dataset.shape, dataset.chunks):
        if offsets[chunk.number] != NOWHERE:
            key = chunk_key(inner, chunk.start, dataset.chunks)
            yield key, int(offsets[chunk.number]), int(sizes[chunk.number])


def chunk_key(inner: str, start: tuple[int, ...], chunks: tuple[int, ...]) -> str:
    """Return the key of a chunk; one across an edge is stored in full, and named so."""
    return block_key(inner, start, tuple(a + c for a, c in zip(start, chunks, strict=True)))


def _offset_of(dataset: h5py.Dataset, start: tuple[int, ...]) -> int | None:
    try:
        return dataset.id.get_chunk_info_by_coord(start).byte_offset
    except (ValueError, RuntimeError):
        return None
