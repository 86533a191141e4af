"""Moments in float64: everything that statistics are made of.

They are measured as exact sums (`ExactMoments`) and rounded once. Moments that were rounded before
they met (of sidecars without exact sums) are merged by the update of Chan, Golub and LeVeque
(1979), "Updating formulae and a pairwise algorithm for computing sample variances", which never
subtracts large sums.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations, extremes and non-finite values of each group.

    All arrays have the same shape: one entry for each group.

    Attributes
    ----------
    count : ndarray of int64
        Finite elements seen.
    mean : ndarray of float64
        Their mean; 0 where count is 0.
    m2 : ndarray of float64
        Sum of their squared deviations from the mean, never negative.
    minimum, maximum : ndarray of float64
        Their extremes; +inf and -inf where count is 0.
    nonfinite : ndarray of int64
        NaN and infinite elements seen, which are in none of the others.
    """

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    nonfinite: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> Moments:
        """Return the moments of nothing, which change nothing that they are merged with."""
        return cls(
            np.zeros(shape, np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros(shape, np.int64),
        )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the arrays, with one entry for each group, as sidecars have them."""
        return tuple(f.name for f in fields(cls))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of every array."""
        return self.count.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(getattr(self, name).nbytes for name in self.names())

    def __getitem__(self, index: Any) -> Self:
        """Return the moments of some of the groups."""
        return replace(self, **{name: getattr(self, name)[index] for name in self.names()})

    def store(self, index: Any, part: Moments) -> None:
        """Put the moments of some groups in place, in arrays that this object owns."""
        for name in self.names():
            getattr(self, name)[index] = getattr(part, name)

    def derived(self, ddof: int = 0) -> dict[str, np.ndarray]:
        """Return what follows from the arrays, by the names that sidecars have for readers."""
        return {"variance": self.variance(ddof)}

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union of two disjoint sets of elements."""
        count = self.count + other.count
        divisor = np.maximum(count, 1)
        delta = other.mean - self.mean
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self.mean + delta * (other.count / divisor)
            m2 = self.m2 + other.m2 + delta * delta * (self.count * (other.count / divisor))
        only_other = self.count == 0
        only_self = other.count == 0
        return Moments(
            count,
            np.where(only_self, self.mean, np.where(only_other, other.mean, mean)),
            np.where(only_self, self.m2, np.where(only_other, other.m2, m2)),
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.nonfinite + other.nonfinite,
        )

    def with_sums(self, moments: Moments) -> Moments:
        """Return other moments of the same elements, with what these hold beside moments."""
        return moments

    def alone(self) -> Moments:
        """Return the same without what is only kept to be merged."""
        return self

    def variance(self, ddof: int = 0) -> np.ndarray:
        """Return ``m2 / (count - ddof)``; NaN where nothing is left to divide by."""
        divisor = (self.count - ddof).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(divisor > 0, self.m2 / divisor, np.nan)

    def deviation(self, ddof: int = 0) -> np.ndarray:
        """Return the square root of the variance."""
        return np.sqrt(self.variance(ddof))

    def mean_square(self) -> np.ndarray:
        """Return the mean of the squares; NaN where count is 0, infinite beyond float64."""
        with np.errstate(over="ignore"):
            return self.variance() + self.mean * self.mean

    def finish(self) -> Moments:
        """Return these moments: they are in float64 already, unlike exact ones."""
        return self
