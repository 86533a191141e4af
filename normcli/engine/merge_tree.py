"""A merge tree: exact moments of numbered parts become one, few of which wait at any time.

Leaves are numbered 0 to n - 1. A node of level l and index i stands for the leaves from
``i * 2**l`` to ``(i + 1) * 2**l``; two neighbours are merged left with right as soon as both are
there, and a node without a right neighbour rises as it is. So no more than one node a level waits
when leaves arrive in order. The order of merging changes no bit (see `ExactMoments`).
"""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar


class Mergeable(Protocol):
    """What a tree merges."""

    def merge(self, other: Self) -> Self:
        """Return the union."""
        ...


T = TypeVar("T", bound=Mergeable)


class MergeTree(Generic[T]):
    """Merges numbered moments into one.

    Parameters
    ----------
    leaves : int
        Number of leaves, 1 or more.
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self.root: T | None = None
        self._waiting: dict[tuple[int, int], T] = {}

    def add(self, first: int, level: int, moments: T) -> tuple[int, int, T]:
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
