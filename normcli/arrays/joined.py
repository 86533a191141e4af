"""Several arrays read as one, end to end along an axis."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.missing import MissingChunks, Part
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.errors import InputError, UsageError


class JoinedSource:
    """Several sources as one.

    Parameters
    ----------
    sources : sequence of ArraySource
        At least one; equal in type, and in all extents but that of `axis`.
    axis : int
        The axis along which they follow each other.

    Raises
    ------
    InputError
        When they do not fit together.
    """

    def __init__(self, sources: Sequence[ArraySource], axis: int = 0) -> None:
        if not sources:
            raise UsageError("No input was given.")
        self._sources = tuple(sources)
        self._axis = axis
        first = self._sources[0]
        for other in self._sources[1:]:
            _require_fit(first, other, axis)
        lengths = [source.info.shape[axis] for source in self._sources]
        self._starts = (0, *accumulate(lengths))
        self.info = _joined_info([source.info for source in self._sources], axis)
        self.remarks = tuple(remark for source in self._sources for remark in source.remarks)
        self.missing = MissingChunks(
            sum(source.missing.missing for source in self._sources),
            sum(source.missing.total for source in self._sources),
            next((s.missing.fill for s in self._sources if s.missing.missing), 0),
            omitted=any(source.missing.omitted for source in self._sources),
        )
        self.name = first.name if len(sources) == 1 else f"{first.name} and {len(sources) - 1} more"

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, from as many sources as it spans."""
        axis = self._axis
        start, stop = block.start[axis], block.stop[axis]
        # Where empty sources share a start, the last of them is the one that goes on.
        number = min(bisect_right(self._starts, start) - 1, len(self._sources) - 1)
        if stop <= self._starts[number + 1]:
            return self._sources[number].read(self._part(block, number), buffer)
        native = self.info.dtype.newbyteorder("=")
        values = block_array(block.shape, native, buffer, self._order())
        while number < len(self._sources) and self._starts[number] < stop:
            part = self._part(block, number)
            if part.size:
                place = [slice(None)] * len(block.start)
                offset = self._starts[number] - start
                place[axis] = slice(part.start[axis] + offset, part.stop[axis] + offset)
                values[tuple(place)] = self._sources[number].read(part)
            number += 1
        return values

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        axis = self._axis
        found: list[Part] = []
        whole = True
        for number, source in enumerate(self._sources):
            part = self._part(block, number)
            if not part.size:
                continue
            own = source.stored_parts(part)
            whole = whole and own is None
            offset = self._starts[number] + part.start[axis] - block.start[axis]
            for piece in [tuple(slice(0, n) for n in part.shape)] if own is None else own:
                moved = list(piece)
                along = piece[axis]
                moved[axis] = slice(along.start + offset, along.stop + offset)
                found.append(tuple(moved))
        return None if whole else found

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies each source, in order."""
        return tuple(entry for source in self._sources for entry in source.identity())

    def close(self) -> None:
        """Close the handles of all sources."""
        for source in self._sources:
            source.close()

    def _part(self, block: Block, number: int) -> Block:
        """Return the part of `block` in one source, in that source's own coordinates."""
        axis, origin = self._axis, self._starts[number]
        low = max(block.start[axis], origin) - origin
        high = min(block.stop[axis], self._starts[number + 1]) - origin
        start, stop = list(block.start), list(block.stop)
        start[axis], stop[axis] = low, max(low, high)
        return Block(block.number, tuple(start), tuple(stop))

    def _order(self) -> Any:
        return "F" if self.info.fortran_order else "C"


def _require_fit(first: ArraySource, other: ArraySource, axis: int) -> None:
    a, b = first.info, other.info
    if a.dtype.newbyteorder("=") != b.dtype.newbyteorder("="):
        raise InputError(
            f"{first.name} holds {a.dtype} and {other.name} holds {b.dtype}: "
            "inputs of one array must have one type."
        )
    if None not in (a.units, b.units) and a.units != b.units:
        raise InputError(
            f"{first.name} is in {a.units} and {other.name} in {b.units}: inputs of one array must "
            "have one unit.",
            "Convert one of them.",
        )
    fits = a.ndim == b.ndim and 0 <= axis < a.ndim
    if not fits or _without(a.shape, axis) != _without(b.shape, axis):
        raise InputError(
            f"{first.name} has shape {a.shape} and {other.name} has shape {b.shape}: "
            f"they can be joined only if all extents but that of axis {axis} are equal."
        )


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _joined_info(infos: Sequence[ArrayInfo], axis: int) -> ArrayInfo:
    first = infos[0]
    shape = list(first.shape)
    if len(infos) > 1:
        shape[axis] = sum(info.shape[axis] for info in infos)

    def alike(field: str) -> Any:
        value = getattr(first, field)
        return value if all(getattr(info, field) == value for info in infos) else None

    return replace(
        first,
        shape=tuple(shape),
        chunks=alike("chunks"),
        shards=alike("shards"),
        fortran_order=all(info.fortran_order for info in infos),
        joined=len(infos) > 1,
    )
