"""Chunks that are not stored: counted, refused where they are nearly all, found for a block.

HDF5 and Zarr legally leave chunks out, and read them as the fill value. The same gap is left by a
writer that was killed, so it is always told.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from normcli.arrays.rules import InputRules
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.errors import DataPolicyError, SafetyError

_GIB = 1 << 30
# Arrays that claim more than a GiB and have less than this stored need a word from the user.
_LEAST_STORED = 0.01
# A map of presence takes a byte a chunk.
_MOST_MAPPED = 1 << 26
# The best that a codec does on zeros; a larger chunk is a claim, not data.
_MOST_INFLATED = 50_000

Part = tuple[slice, ...]


@dataclass(frozen=True)
class MissingChunks:
    """How many chunks of an array are not stored.

    Attributes
    ----------
    missing, total : int
        Chunks that are not stored, and all.
    fill : object
        What they are read as.
    chunks : tuple of int
        Extents of a chunk.
    stored : ndarray of bool, optional
        Which are stored, on the grid of chunks; known where they are left out.
    omitted : bool
        Whether they are left out of the statistics.
    """

    missing: int = 0
    total: int = 0
    fill: Any = 0
    chunks: tuple[int, ...] = ()
    stored: np.ndarray | None = None
    omitted: bool = False

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return the parts of `block` that are stored, in its coordinates; None for all of it."""
        if self.stored is None:
            return None
        spans = tuple(
            slice(a // c, -(-b // c))
            for a, b, c in zip(block.start, block.stop, self.chunks, strict=True)
        )
        near = self.stored[spans]
        if near.all():
            return None
        parts = []
        for index in np.argwhere(near):
            part = []
            for i, span, c, a, b in zip(
                index, spans, self.chunks, block.start, block.stop, strict=True
            ):
                low = (int(i) + span.start) * c
                part.append(slice(max(low, a) - a, min(low + c, b) - a))
            parts.append(tuple(part))
        return parts


def counted(
    name: str,
    info: ArrayInfo,
    chunks: tuple[int, ...],
    stored: int | np.ndarray,
    fill: Any,
    rules: InputRules,
) -> MissingChunks:
    """Return what is missing, if the rules bear it.

    Parameters
    ----------
    name : str
        What messages call the array.
    info : ArrayInfo
        Its shape and type.
    chunks : tuple of int
        Extents of what is stored or missing as one.
    stored : int or ndarray of bool
        How many chunks are stored, or which.
    fill : object
        What the others are read as.
    rules : InputRules
        What to do about them.

    Raises
    ------
    DataPolicyError
        When chunks are missing under ``error``, or nearly all of a large array.
    """
    total = prod(-(-n // c) for n, c in zip(info.shape, chunks, strict=True))
    there = int(np.count_nonzero(stored)) if isinstance(stored, np.ndarray) else stored
    missing = max(0, total - there)
    if not missing:
        return MissingChunks(0, total, fill, chunks)
    if rules.missing == "error":
        raise DataPolicyError(
            f"{name}: {missing} of {total} chunks are not stored.",
            "--missing fill reads them as the fill value, --missing omit leaves them out.",
        )
    share = there / total
    if rules.missing is None and share < _LEAST_STORED and info.nbytes > _GIB:
        raise DataPolicyError(
            f"{name} claims shape {info.shape}, {info.nbytes / _GIB:.1f} GiB, but "
            f"{100 * share:.1f} % of chunks exist ({there} of {total}).",
            "--missing fill reads the others as the fill value.",
        )
    if rules.missing != "omit":
        return MissingChunks(missing, total, fill, chunks)
    if not isinstance(stored, np.ndarray):
        raise DataPolicyError(
            f"{name} has {total} chunks, too many to leave out those that are not stored.",
            "Use --missing fill, or rewrite it with larger chunks.",
        )
    return MissingChunks(missing, total, fill, chunks, stored, omitted=True)


def wants_map(total: int, rules: InputRules) -> bool:
    """Whether it must be known which chunks are stored, not only how many."""
    return rules.missing == "omit" and total <= _MOST_MAPPED


def refuse_huge_chunk(name: str, info: ArrayInfo, stored_bytes: int) -> None:
    """Refuse chunks so large that what is stored cannot fill one.

    Raises
    ------
    SafetyError
        When a chunk of more than 1 GiB is 50 000 times as large as everything that is stored.
    """
    nbytes = prod(info.chunks or (1,)) * info.dtype.itemsize
    if nbytes > _GIB and nbytes > _MOST_INFLATED * max(stored_bytes, 1):
        raise SafetyError(
            f"{name} has chunks of {nbytes / _GIB:.1f} GiB, but only {stored_bytes} bytes are "
            "stored.",
            "Rewrite it with smaller chunks if it is meant so.",
        )
