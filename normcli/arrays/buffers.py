"""Memory that blocks are read into, used again for one block after another.

Newly allocated memory is zeroed page by page by the kernel when it is first touched, which costs
about as much as copying a page-cached file into it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import numpy as np


class BlockBuffer:
    """Memory for one block at a time."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype, order: Literal["C", "F"] = "C"
    ) -> np.ndarray:
        """Return an array of undefined elements, which ends the use of the one before it."""
        nbytes = prod(shape) * dtype.itemsize
        if len(self._memory) < nbytes:
            self._memory = np.empty(0, np.uint8)  # the old memory is free before the new is taken
            self._memory = np.empty(nbytes, np.uint8)
        return self._memory[:nbytes].view(dtype).reshape(shape, order=order)


class BufferPool:
    """Buffers for as many threads as ask at once; it pickles as empty."""

    def __init__(self) -> None:
        self._free: list[BlockBuffer] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[BlockBuffer]:
        """Lend a buffer that nobody else has."""
        try:
            buffer = self._free.pop()  # the one used last, whose memory may still be in the cache
        except IndexError:
            buffer = BlockBuffer()
        yield buffer
        self._free.append(buffer)

    def clear(self) -> None:
        """Free the memory of all buffers that are not lent."""
        self._free.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return (BufferPool, ())


def block_array(
    shape: tuple[int, ...],
    dtype: np.dtype,
    buffer: BlockBuffer | None,
    order: Literal["C", "F"] = "C",
) -> np.ndarray:
    """Return an array of undefined elements in `buffer`, or in memory of its own without one."""
    if buffer is None:
        return np.empty(shape, dtype, order)
    return buffer.array(shape, dtype, order)
