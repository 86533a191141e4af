"""Blocks turned into stored HDF5 chunks, in the thread that has the block."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import h5py
import numpy as np

from normcli.arrays.handles import PerProcess
from normcli.arrays.hdf5_filters import Pipeline
from normcli.domain.grid import Block


@dataclass(frozen=True)
class ChunkEncoder:
    """Makes the stored chunks of one dataset.

    Attributes
    ----------
    shape : tuple of int
        Extents of the dataset.
    chunks : tuple of int
        Extents of one chunk.
    dtype : numpy.dtype
        Element type as stored.
    pipeline : Pipeline or None
        Its filters, where they are known here.
    library : LibraryEncoder or None
        HDF5 itself, where they are not.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    pipeline: Pipeline | None
    library: LibraryEncoder | None = None

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkEncoder:
        """Return the encoder of a new, chunked dataset."""
        dtype = np.dtype(dataset.dtype.str)
        chunk_bytes = prod(dataset.chunks) * dtype.itemsize
        plist = dataset.id.get_create_plist()
        pipeline = Pipeline.of(plist, dtype, chunk_bytes)
        library = LibraryEncoder(dataset) if pipeline is None else None
        return cls(dataset.shape, dataset.chunks, dtype, pipeline, library)

    @property
    def codes(self) -> tuple[int, ...]:
        """HDF5's numbers of the filters that are known here."""
        return self.pipeline.codes if self.pipeline is not None else ()

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of each stored chunk, or None where they depend on the elements."""
        return None if self.pipeline is None else self.pipeline.stored_bytes

    def encode(
        self, block: Block, values: np.ndarray
    ) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...], int]]:
        """Yield the first element, the buffers and the filter mask of each chunk of `block`.

        Raises
        ------
        RuntimeError
            When `block` is not whole chunks.
        """
        if not all(
            a % c == 0 and (b % c == 0 or b == n)
            for a, b, c, n in zip(block.start, block.stop, self.chunks, self.shape, strict=True)
        ):
            raise RuntimeError(f"block {block.start}-{block.stop} is not whole chunks")
        counts = [-(-n // c) for n, c in zip(block.shape, self.chunks, strict=True)]
        for index in np.ndindex(*counts):
            begin = tuple(i * c for i, c in zip(index, self.chunks, strict=True))
            end = tuple(a + c for a, c in zip(begin, self.chunks, strict=True))
            part = values[tuple(map(slice, begin, end))]
            if part.shape == self.chunks:
                chunk = np.ascontiguousarray(part, self.dtype)
            else:  # HDF5 stores chunks across the edges in full
                chunk = np.zeros(self.chunks, self.dtype)
                chunk[tuple(map(slice, part.shape))] = part
            place = tuple(a + b for a, b in zip(block.start, begin, strict=True))
            assert self.pipeline is not None or self.library is not None
            pieces, mask = (self.pipeline or self.library).encode(chunk)  # type: ignore[union-attr]
            yield place, pieces, mask


class LibraryEncoder:
    """Has HDF5 encode a chunk, in a file in memory, and takes it from there.

    Parameters
    ----------
    dataset : h5py.Dataset
        A dataset with the filters.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        opener = partial(
            _dataset_of_one_chunk, dataset.chunks, dataset.dtype.str, _filters(dataset)
        )
        self._handle = PerProcess(opener, _close)
        self._lock = _Lock()

    def encode(self, chunk: np.ndarray) -> tuple[tuple[bytes], int]:
        """Return a chunk as it is stored, and its filter mask."""
        with self._lock.get():
            dataset = self._handle.get()
            dataset[...] = chunk
            dataset.flush()
            mask, data = dataset.id.read_direct_chunk((0,) * chunk.ndim)
            return (data,), mask


class _Lock:
    """A lock that each process has for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def get(self) -> threading.Lock:
        return self._lock

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Lock, ())


def memory_file() -> h5py.File:
    """Return a new HDF5 file that is never stored."""
    return h5py.File(f"memory-{uuid.uuid4().hex}", "w", driver="core", backing_store=False)


_Filter = tuple[int, int, tuple[int, ...]]


def _filters(dataset: h5py.Dataset) -> tuple[_Filter, ...]:
    plist = dataset.id.get_create_plist()
    found = (plist.get_filter(number) for number in range(plist.get_nfilters()))
    return tuple((code, flags, tuple(parameters)) for code, flags, parameters, _ in found)


def _dataset_of_one_chunk(
    chunks: tuple[int, ...], dtype: str, filters: tuple[_Filter, ...]
) -> h5py.Dataset:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunks)
    for code, flags, parameters in filters:
        plist.set_filter(code, flags, parameters)
    file = memory_file()
    space = h5py.h5s.create_simple(chunks)
    kind = h5py.h5t.py_create(np.dtype(dtype))
    return h5py.Dataset(h5py.h5d.create(file.id, b"x", kind, space, dcpl=plist))


def _close(dataset: h5py.Dataset) -> None:
    dataset.file.close()
