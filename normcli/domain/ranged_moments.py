"""Exact sums with exact extremes of 64-bit integers: what the method ``minmax`` needs of them.

Beyond 2**53 float64 rounds integers, and extremes of a small spread would be the same number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.wide_moments import WideMoments, completed, rests_of_extremes

# Either of the two types of 64 bits stands for both.
_INTEGERS = np.dtype(np.int64)


@dataclass(frozen=True)
class RangedMoments:
    """Exact sums of integers, and what the rounding of their extremes took away.

    Attributes
    ----------
    plain : ExactMoments
        Their sums.
    minimum_rest, maximum_rest : ndarray of float64
        Integers: the minimum is ``plain.minimum + minimum_rest``; 0 where there are no elements.
    """

    plain: ExactMoments
    minimum_rest: np.ndarray
    maximum_rest: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> RangedMoments:
        """Return the moments of nothing, which change nothing that they are merged with."""
        return cls(ExactMoments.identity(shape), np.zeros(shape), np.zeros(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the groups."""
        return self.plain.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return self.plain.nbytes + self.minimum_rest.nbytes + self.maximum_rest.nbytes

    def __getitem__(self, index: Any) -> RangedMoments:
        """Return what some of the groups have."""
        return RangedMoments(self.plain[index], self.minimum_rest[index], self.maximum_rest[index])

    def store(self, index: Any, part: RangedMoments) -> RangedMoments:
        """Put some groups in place, and return the whole."""
        plain = self.plain.store(index, part.plain)
        self.minimum_rest[index] = part.minimum_rest
        self.maximum_rest[index] = part.maximum_rest
        return RangedMoments(plain, self.minimum_rest, self.maximum_rest)

    def merge(self, other: RangedMoments) -> RangedMoments:
        """Return the moments of the union of two disjoint sets of elements."""
        rests = rests_of_extremes(
            self.plain, (self.minimum_rest, self.maximum_rest),
            other.plain, (other.minimum_rest, other.maximum_rest),
        )  # fmt: skip
        return RangedMoments(self.plain.merge(other.plain), *rests)

    def canonical(self) -> RangedMoments:
        """Return the same with sums in their canonical form."""
        return replace(self, plain=self.plain.canonical())

    def finish(self, rounding: Callable[[ExactMoments], Moments] = ExactMoments.finish) -> Moments:
        """Return the moments in float64: wide ones where integers are beyond 2**53."""
        found = completed(rounding(self.plain), self.plain, "minmax", _INTEGERS)
        if not isinstance(found, WideMoments):
            return found
        return replace(found, minimum_rest=self.minimum_rest, maximum_rest=self.maximum_rest)
