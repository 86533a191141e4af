"""Where the elements of a block lie in a contiguous array: runs of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from normcli.domain.grid import Block

# What one more system call costs, in bytes that could have been copied in the same time.
_CALL_COST = 16 * 1024
_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Region:
    """A box of a C-ordered array.

    Attributes
    ----------
    shape : tuple of int
        Extents of the whole array.
    start, stop : tuple of int
        Bounds of the box.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Extents of the box."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def contiguous_axis(self) -> int:
        """Return the first axis from which on the box is one run of the array."""
        axis = self._shaped - 1
        while axis > 0 and self.extents[axis] == self.shape[axis]:
            axis -= 1
        return max(axis, 0)

    def cheapest_axis(self, itemsize: int) -> int:
        """Return the axis from which on whole rows are best read at once, and then cut.

        That is `contiguous_axis` unless its runs are so small that the gaps between them cost
        less than one system call for each.
        """
        best = self.contiguous_axis()
        candidates = range(best, -1, -1)
        return min(candidates, key=lambda axis: self._cost(axis, itemsize))

    def offsets(self, axis: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield each outer index of the box, and the element where its row of `axis` starts."""
        strides = element_strides(self.shape)
        inner = self.start[axis] * strides[axis] if self.shape else 0
        for index in np.ndindex(*self.extents[:axis]):
            outer = sum(
                (i + a) * s for i, a, s in zip(index, self.start[:axis], strides, strict=False)
            )
            yield index, outer + inner

    def piece_rows(self, axis: int, itemsize: int) -> int:
        """Return how many rows of `axis` to read at once, so that cutting costs little memory."""
        return max(1, _PIECE // max(1, prod(self.shape[axis + 1 :]) * itemsize))

    @property
    def _shaped(self) -> int:
        return len(self.shape)

    def _cost(self, axis: int, itemsize: int) -> int:
        reads = prod(self.extents[:axis])
        row = prod(self.shape[axis + 1 :]) * itemsize
        span = row * (self.extents[axis] if self.shape else 1)
        return reads * (_CALL_COST + span)


def stored_region(shape: tuple[int, ...], block: Block, fortran_order: bool) -> Region:
    """Return where a block lies in storage.

    A Fortran-ordered array is the C-ordered array of its transpose.
    """
    step = -1 if fortran_order else 1
    return Region(shape[::step], block.start[::step], block.stop[::step])


def byte_view(values: np.ndarray) -> memoryview:
    """Return the bytes of a C-ordered array, without copying them."""
    flat: Any = values.reshape(-1).view(np.uint8)
    return memoryview(flat)


def element_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many elements one step along each axis of a C-ordered array skips."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
