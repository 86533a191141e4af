"""What is known of an array before any of its elements is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

# A longer text is no name of units.
_LONGEST_UNITS = 200


@dataclass(frozen=True)
class ArrayInfo:
    """Shape, type and storage of an array.

    Attributes
    ----------
    shape : tuple of int
        Extent of each axis.
    dtype : numpy.dtype
        Element type as stored, byte order included.
    chunks : tuple of int or None
        Extents of one stored chunk; None for contiguous storage.
    shards : tuple of int or None
        Extents of one shard (a multiple of `chunks`), where chunks are packed in shards.
    dims : tuple of str or None
        Dimension names; an axis without one holds the empty string.
    attrs : mapping
        Attributes of the array, as far as JSON can hold them.
    storage : {"npy", "hdf5", "zarr", "stream"}
        How it is stored, which decides what reading a block costs.
    fortran_order : bool
        Whether the first axis varies fastest in storage.
    codecs : mapping
        How chunks are encoded, in the words of the format, for the sink of the same format.
    joined : bool
        Whether a block may be put together from several inputs.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    dims: tuple[str, ...] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    storage: str = "npy"
    fortran_order: bool = False
    codecs: Mapping[str, Any] = field(default_factory=dict)
    joined: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return self.size * self.dtype.itemsize

    @property
    def write_unit(self) -> tuple[int, ...] | None:
        """Extents that one writer must own whole: the shard, else the chunk, else None."""
        return self.shards or self.chunks

    @property
    def units(self) -> str | None:
        """Units of the elements, where the attribute ``units`` names them."""
        units = self.attrs.get("units")
        known = isinstance(units, str) and 0 < len(units.strip()) <= _LONGEST_UNITS
        return str(units).strip() if known else None
