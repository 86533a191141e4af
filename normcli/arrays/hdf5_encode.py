"""Blocks turned into stored HDF5 chunks, in the thread that has the block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np

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
    pipeline : Pipeline
        Its filters.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    pipeline: Pipeline

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkEncoder | None:
        """Return the encoder of a new dataset; None where HDF5 must encode it."""
        if dataset.chunks is None:
            return None
        dtype = np.dtype(dataset.dtype.str)
        chunk_bytes = prod(dataset.chunks) * dtype.itemsize
        pipeline = Pipeline.of(dataset.id.get_create_plist(), dtype, chunk_bytes)
        if pipeline is None:
            return None
        return cls(dataset.shape, dataset.chunks, dtype, pipeline)

    def takes(self, block: Block, values: np.ndarray) -> bool:
        """Whether `block` is whole chunks, and its values need no conversion but of byte order."""
        whole = all(
            a % c == 0 and (b % c == 0 or b == n)
            for a, b, c, n in zip(block.start, block.stop, self.chunks, self.shape, strict=True)
        )
        same = values.dtype.newbyteorder("=") == self.dtype.newbyteorder("=")
        return whole and same and values.shape == block.shape

    def encode(
        self, block: Block, values: np.ndarray
    ) -> Iterator[tuple[tuple[int, ...], Any, int]]:
        """Yield the first element, the bytes and the filter mask of each chunk of `block`."""
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
            data, mask = self.pipeline.encode(chunk)
            yield place, data, mask
