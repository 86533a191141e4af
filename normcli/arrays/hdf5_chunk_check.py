"""Checks stored chunks before HDF5 decodes them: it believes any size that they inflate to.

HDF5 gives 1 GiB of memory to a chunk of 128 bytes that inflates so far, and reads one that inflates
short with what the memory held before as its tail. Where chunks are decoded around HDF5, this is
noticed there; this is for the datasets that are left to it.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import h5py
import numpy as np

from normcli.arrays.hdf5_builtin_filters import (
    BadChunkError,
    OversizedChunkError,
    inflate_at_most,
)
from normcli.arrays.hdf5_filters import Pipeline
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.errors import InputError, SafetyError

_DEFLATE = h5py.h5z.FILTER_DEFLATE


class ChunkCheck:
    """Inflates the chunks of a block, within bounds, before HDF5 does.

    Parameters
    ----------
    dataset : h5py.Dataset
        An open dataset.
    info : ArrayInfo
        Its description.
    name : str
        What messages call it.
    """

    def __init__(self, dataset: h5py.Dataset, info: ArrayInfo, name: str) -> None:
        plist = dataset.id.get_create_plist()
        self._chunks = info.chunks or ()
        self._bytes = prod(self._chunks) * info.dtype.itemsize
        self._pipeline = Pipeline.of(plist, info.dtype, self._bytes)
        self._codes = [plist.get_filter(n)[0] for n in range(plist.get_nfilters())]
        self._dataset = dataset
        self._name = name

    @property
    def needed(self) -> bool:
        """Whether there is something to inflate."""
        return bool(self._chunks) and _DEFLATE in self._codes and not self._dataset.is_virtual

    def require(self, block: Block) -> None:
        """Refuse a block with a chunk that is not what its filters make of a chunk.

        Raises
        ------
        InputError
            When one inflates short, or not at all.
        SafetyError
            When one inflates to more than a chunk.
        """
        spans = [
            range(a - a % c, b, c)
            for a, b, c in zip(block.start, block.stop, self._chunks, strict=True)
        ]
        for begin in product(*spans):
            stored = self._dataset.id.get_chunk_info_by_coord(begin)
            if stored.byte_offset is None:
                continue
            require_stored_size(f"{self._name} at {begin}", stored.size, self._bytes)
            mask, data = self._dataset.id.read_direct_chunk(begin)
            try:
                self._decode(data, mask)
            except OversizedChunkError as error:
                raise SafetyError(
                    f"{self._name} at {begin}: its stored chunk {error}.",
                    "It is damaged, or made to exhaust memory; it was not read.",
                ) from error
            except BadChunkError as error:
                raise InputError(
                    f"{self._name} at {begin} could not be read: its stored chunk {error}.",
                    "The file is damaged: copy or download it again.",
                ) from error

    def _decode(self, data: Any, mask: int) -> None:
        if self._pipeline is not None:
            try:
                self._pipeline.decode(data, mask, np.empty(self._bytes, np.uint8))
            except OversizedChunkError:
                raise
            except BadChunkError:
                # Chunks across the edges may be stored without filters, which only HDF5 knows.
                if len(data) != self._bytes:
                    raise
        elif self._codes[-1] == _DEFLATE and not mask >> (len(self._codes) - 1) & 1:
            # What comes before may shrink a chunk, or add a little to it.
            inflate_at_most(data, 2 * self._bytes + 4096)


def require_stored_size(where: str, size: int, chunk_bytes: int) -> None:
    """Refuse a stored chunk that no filter made of one chunk, before memory is taken for it.

    Parameters
    ----------
    where : str
        The chunk, for the message.
    size : int
        Bytes that it takes in the file, as the file says.
    chunk_bytes : int
        Bytes of its elements.

    Raises
    ------
    SafetyError
        When it is more than twice as large as its elements (and 4096 bytes).
    """
    if size > 2 * chunk_bytes + 4096:
        raise SafetyError(
            f"{where}: its stored chunk is said to have {size:,} bytes, for {chunk_bytes:,} bytes "
            "of elements.",
            "It is damaged, or made to exhaust memory; it was not read.",
        )
