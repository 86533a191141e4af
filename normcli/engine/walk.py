"""The order in which blocks are walked, and how they are bundled into tasks.

Blocks that share their groups (the same place along the kept axes) form a region. Positions count
region by region, and within a region along the aggregated axes, which is the order of merging.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from normcli.domain.grid import Block, Grid

# Blocks are bundled only where there are more than this, so that progress stays visible.
TASKS_WANTED = 2048

# log2 of the most blocks a task owns, however many there are: 64 blocks of 16 MiB are a second or
# two of work, which is all that is lost with a worker, and what the journal counts in.
LARGEST_LEVEL = 6


@dataclass(frozen=True)
class Run:
    """Consecutive positions of a walk: what one task owns.

    Attributes
    ----------
    number : int
        Which run it is, from 0.
    first, count : int
        Its positions.
    level : int
        log2 of the positions of a full run; a run is a node of that level of the merge tree.
    """

    number: int
    first: int
    count: int
    level: int


@dataclass(frozen=True)
class Walk:
    """All blocks of a grid in the order of merging.

    Attributes
    ----------
    grid : Grid
        The blocks.
    kept : tuple of int
        Axes along which blocks belong to different regions, the slowest to change first.
    """

    grid: Grid
    kept: tuple[int, ...] = ()

    @cached_property
    def ranks(self) -> int:
        """Blocks in one region."""
        return prod(n for axis, n in enumerate(self.grid.counts) if axis not in self.kept)

    @cached_property
    def regions(self) -> int:
        """Number of regions."""
        return prod(self.grid.counts[axis] for axis in self.kept)

    def block(self, position: int) -> Block:
        """Return the block at a position."""
        region, rank = divmod(position, self.ranks)
        counts = self.grid.counts
        index = [0] * len(counts)
        for axis in reversed(self.kept):
            region, index[axis] = divmod(region, counts[axis])
        for axis in reversed(range(len(counts))):
            if axis not in self.kept:
                rank, index[axis] = divmod(rank, counts[axis])
        number = 0
        for i, count in zip(index, counts, strict=True):
            number = number * count + i
        return self.grid.block(number)

    def __len__(self) -> int:
        return self.ranks * self.regions

    @cached_property
    def _level(self) -> int:
        level = 0
        while len(self) >> level > TASKS_WANTED and level < LARGEST_LEVEL:
            level += 1
        if self.ranks > 1:
            # A run stays inside its region, or it would be no node of that region's tree.
            level = min(level, (self.ranks - 1).bit_length())
        return level

    @cached_property
    def run_count(self) -> int:
        """Number of runs, and so of tasks."""
        size = 1 << self._level
        if self.ranks == 1:
            return -(-self.regions // size)
        return self.regions * -(-self.ranks // size)

    def runs(self) -> Iterator[Run]:
        """Yield the runs in order."""
        size = 1 << self._level
        length = self.regions if self.ranks == 1 else self.ranks
        number = 0
        for base in range(0, len(self), length):
            for offset in range(0, length, size):
                count = min(size, length - offset)
                yield Run(number, base + offset, count, self._level)
                number += 1
