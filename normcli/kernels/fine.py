"""Moments with the mean in two parts, for merges within a block.

At 1e8 +- 1 a float64 mean is known to 1e-8, and each merge of two such means would cost m2 digits
(1e-10 of it for a tile a tenth of a standard deviation away). Inside a block the rounding error of
each mean is carried along; m2 then keeps 12 digits and more, however many tiles were merged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from normcli.domain.moments import Moments


@dataclass(frozen=True)
class FineMoments:
    """Moments, and what must be added to their mean: less than half a unit in its last place."""

    moments: Moments
    tail: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> FineMoments:
        """Return the moments of nothing."""
        return cls(Moments.identity(shape), np.zeros(shape))

    def __getitem__(self, index: Any) -> FineMoments:
        """Return the moments of some of the groups."""
        return FineMoments(self.moments[index], self.tail[index])

    def store(self, index: Any, part: FineMoments) -> None:
        """Put the moments of some groups in place."""
        self.moments.store(index, part.moments)
        self.tail[index] = part.tail

    def reshape(self, shape: tuple[int, ...]) -> FineMoments:
        """Return the same moments with every array in another shape."""
        return FineMoments(reshape(self.moments, shape), self.tail.reshape(shape))

    def merge(self, other: FineMoments) -> FineMoments:
        """Return the moments of the union of two disjoint sets of elements."""
        base = np.where(self.moments.count > 0, self.moments.mean, other.moments.mean)
        return _around(base, self._from(base).merge(other._from(base)))

    def fold(self, axis: int) -> FineMoments:
        """Return the moments merged along one axis, in the fixed order of `Moments.fold`."""
        some = np.where(self.moments.count > 0, self.moments.mean, -np.inf).max(axis=axis)
        base = np.where(np.isfinite(some), some, 0.0)
        return _around(base, self._from(np.expand_dims(base, axis)).fold(axis))

    def _from(self, base: np.ndarray) -> Moments:
        """Return moments whose means are measured from near them."""
        with np.errstate(over="ignore", invalid="ignore"):
            return replace(self.moments, mean=(self.moments.mean - base) + self.tail)


def reshape(moments: Moments, shape: tuple[int, ...]) -> Moments:
    """Return moments with every array in another shape."""
    return Moments(*(getattr(moments, f.name).reshape(shape) for f in fields(moments)))


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded sum and its rounding error (Knuth, 1969); 0 for a sum without one."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = a + b
        part = total - a
        error = (a - (total - part)) + (b - part)
    return total, np.where(np.isfinite(error), error, 0.0)


def _around(base: np.ndarray, found: Moments) -> FineMoments:
    mean, tail = two_sum(base, np.where(found.count > 0, found.mean, 0.0))
    seen = found.count > 0
    return FineMoments(replace(found, mean=np.where(seen, mean, 0.0)), np.where(seen, tail, 0.0))
