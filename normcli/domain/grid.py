"""How an array is cut into the blocks that tasks own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod


@dataclass(frozen=True)
class Block:
    """A box of an array: the unit that one task reads, computes and writes.

    Attributes
    ----------
    number : int
        Position in the grid, in C order; it fixes the order of merging.
    start, stop : tuple of int
        Half-open bounds along each axis, in elements.
    """

    number: int
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the block."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The block as an index into its array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Grid:
    """A regular cut of `shape` into blocks; each element lies in exactly one block.

    Attributes
    ----------
    shape : tuple of int
        Extents of the array.
    block_shape : tuple of int
        Extents of a block; blocks at the upper edges may be smaller.
    origin : tuple of int
        Where the grid begins in the array, if it covers a box of it only; empty for all of it.
    """

    shape: tuple[int, ...]
    block_shape: tuple[int, ...]
    origin: tuple[int, ...] = ()

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block_shape, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def block(self, number: int) -> Block:
        """Return block `number`, counted in C order."""
        index = []
        rest = number
        for count in reversed(self.counts):
            rest, i = divmod(rest, count)
            index.append(i)
        start = tuple(i * b for i, b in zip(reversed(index), self.block_shape, strict=True))
        stop = tuple(
            min(a + b, n) for a, b, n in zip(start, self.block_shape, self.shape, strict=True)
        )
        if self.origin:
            start = tuple(a + o for a, o in zip(start, self.origin, strict=True))
            stop = tuple(b + o for b, o in zip(stop, self.origin, strict=True))
        return Block(number, start, stop)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(number) for number in range(len(self)))
