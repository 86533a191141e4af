"""A merge tree whose shape is fixed by numbers, not by the order of arrival.

Leaves are numbered 0 to n - 1. A node of level l and index i stands for the leaves from
``i * 2**l`` to ``(i + 1) * 2**l``; two neighbours are merged left with right as soon as both are
there, and a node without a right neighbour rises as it is. So the same leaves give the same bits
for any number of workers, and no more than one node a level waits when leaves arrive in order.
"""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar


class Mergeable(Protocol):
    """Sums over one set of elements, which merge with those over another."""

    def merge(self, other: Self) -> Self:
        """Return the sums over the union of two disjoint sets."""
        ...


M = TypeVar("M", bound=Mergeable)


class MergeTree(Generic[M]):
    """Merges numbered moments (or other sums) into one.

    Parameters
    ----------
    leaves : int
        Number of leaves, 1 or more.
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self.root: M | None = None
        self._waiting: dict[tuple[int, int], M] = {}

    def add(self, first: int, level: int, moments: M) -> tuple[int, int, M]:
        """Add the node that stands for leaves from `first` on, `2**level` of them at most.

        Returns
        -------
        tuple of int, int and moments
            The node that it ended up in: first leaf, level and moments.
        """
        index = first >> level
        while (1 << level) < self.leaves:
            sibling = index ^ 1
            if index % 2 == 0 and sibling << level >= self.leaves:
                pass  # No right neighbour will ever come.
            elif (level, sibling) in self._waiting:
                other = self._waiting.pop((level, sibling))
                moments = other.merge(moments) if index % 2 else moments.merge(other)
            else:
                self._waiting[level, index] = moments
                return index << level, level, moments
            index >>= 1
            level += 1
        self.root = moments
        return index << level, level, moments
