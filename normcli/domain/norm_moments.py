"""Moments with a p-norm: what the method ``lp`` divides by.

The norms of p = 2 and infinity follow from the moments. For any other p the sum of ``|x|**p`` is
kept beside them, as exactly as other sums are: each power is rounded once, their sum not at all,
so that it is the same for any chunks, order and number of workers. Powers that leave float64 are
summed in units of their own (`FarPowers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.far_powers import LARGEST_P, FarPowers, norm_of_far
from normcli.domain.moments import Moments
from normcli.domain.wide_moments import WideMoments, completed

# Where the largest power of a group is smaller, others may have lost bits that its norm needs.
LEAST_POWER = 1e-290


@dataclass(frozen=True)
class NormMoments(Moments):
    """Moments, and the p-norm of the same finite elements.

    Attributes
    ----------
    norm : ndarray of float64
        ``sum(|x|**p)**(1/p)`` of each group; 0 where count is 0, infinite where it leaves float64,
        or powers leave it whose p is above `LARGEST_P`.
    p : float
        The p, 1 or more, or infinity.
    """

    norm: np.ndarray
    p: float = 2.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the arrays."""
        return (*Moments.names(), "norm")

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> NormMoments:
        """Return the moments of nothing."""
        return cls.of(Moments.identity(shape), np.zeros(shape), 2.0)

    @classmethod
    def of(cls, moments: Moments, norm: np.ndarray, p: float) -> NormMoments:
        """Return moments with a norm of the same elements."""
        plain = {name: getattr(moments, name) for name in Moments.names()}
        return cls(**plain, norm=norm, p=p)

    def merge(self, other: Moments) -> NormMoments:
        """Return the moments of the union of two disjoint sets of elements."""
        assert isinstance(other, NormMoments)
        union = super().merge(other)
        largest = np.maximum(self.norm, other.norm)
        if np.isinf(self.p):
            return NormMoments.of(union, largest, self.p)
        # Scaled by the larger one, so that no power leaves float64.
        scale = np.where(largest > 0, largest, 1.0)
        powers = (self.norm / scale) ** self.p + (other.norm / scale) ** self.p
        return NormMoments.of(union, scale * powers ** (1 / self.p) * (largest > 0), self.p)

    def with_sums(self, moments: Moments) -> NormMoments:
        """Return other moments of the same elements, with the norm that follows from them.

        That of p = 2 and infinity is theirs; any other one stays.
        """
        if needs_powers(self.p):
            return replace(self, **{name: getattr(moments, name) for name in Moments.names()})
        return NormMoments.of(moments, norm_of(moments, self.p), self.p)


def needs_powers(p: float) -> bool:
    """Whether the sum of ``|x|**p`` does not follow from moments."""
    return p != 2 and not np.isinf(p)


def largest_magnitude(moments: Moments) -> np.ndarray:
    """Return the largest magnitude of each group; 0 where count is 0."""
    seen = moments.count > 0
    low, high = np.where(seen, moments.minimum, 0.0), np.where(seen, moments.maximum, 0.0)
    return np.asarray(np.maximum(np.abs(low), np.abs(high)))


def norm_of(moments: Moments, p: float) -> np.ndarray:
    """Return the norm that follows from moments, for p = 2 or infinity.

    ``sum(x**2)`` is ``m2 + n * mean**2``, both of which are correctly rounded and not negative, so
    nothing cancels: the norm is right to 4 units in the last place. Of wide moments it is found in
    their units, where the squares fit.
    """
    largest = largest_magnitude(moments)
    if np.isinf(p):
        return largest
    if isinstance(moments, WideMoments):
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.ldexp(norm_of(moments.units(), p), moments.m2_exponent))
    scale = np.where(largest > 0, largest, 1.0)
    with np.errstate(over="ignore"):
        share = moments.mean / scale
        squares = moments.m2 / scale / scale + moments.count * (share * share)
        return np.asarray(scale * np.sqrt(squares) * (largest > 0))


def norm_of_powers(powers: Moments, p: float) -> np.ndarray:
    """Return the norm of elements whose powers have these moments."""
    # The n-th root first, because n times the mean may leave float64 where the norm does not.
    with np.errstate(over="ignore"):
        if p == 1:
            return np.asarray(powers.mean * powers.count)
        return np.asarray(powers.mean ** (1 / p) * powers.count ** (1 / p))


@dataclass(frozen=True)
class PowerMoments:
    """Exact sums of elements and of their powers, before either is rounded.

    Attributes
    ----------
    plain : ExactMoments
        Of the elements.
    powers : ExactMoments or None
        Of ``|x|**p``; None where the norm follows from `plain`.
    p : float
        The p.
    far : FarPowers or None
        Of powers that leave float64; None where there are none.
    """

    plain: ExactMoments
    powers: ExactMoments | None
    p: float
    far: FarPowers | None = None

    @classmethod
    def identity(cls, shape: tuple[int, ...], p: float) -> PowerMoments:
        """Return the moments of nothing."""
        powers = ExactMoments.identity(shape) if needs_powers(p) else None
        return cls(ExactMoments.identity(shape), powers, p)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the groups."""
        return self.plain.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all sums together."""
        held = (self.plain, self.powers, self.far)
        return sum(sums.nbytes for sums in held if sums is not None)

    def __getitem__(self, index: Any) -> PowerMoments:
        """Return the sums of some of the groups."""
        powers = None if self.powers is None else self.powers[index]
        far = None if self.far is None else self.far[index]
        return PowerMoments(self.plain[index], powers, self.p, far)

    def store(self, index: Any, part: PowerMoments) -> PowerMoments:
        """Put some groups in place, and return the whole."""
        powers, far = self.powers, self.far
        if powers is not None:
            assert part.powers is not None
            powers = powers.store(index, part.powers)
        if far is not None or part.far is not None:
            far = far or FarPowers.identity(self.shape)
            far = far.store(index, part.far or FarPowers.identity(part.shape))
        return PowerMoments(self.plain.store(index, part.plain), powers, self.p, far)

    def merge(self, other: PowerMoments) -> PowerMoments:
        """Return the sums of the union of two disjoint sets of elements."""
        powers, far = self.powers, self.far
        if powers is not None:
            assert other.powers is not None
            powers = powers.merge(other.powers)
        if far is not None and other.far is not None:
            far = far.merge(other.far)
        return PowerMoments(self.plain.merge(other.plain), powers, self.p, far or other.far)

    def canonical(self) -> PowerMoments:
        """Return the same with sums in their canonical form."""
        powers = None if self.powers is None else self.powers.canonical()
        far = None if self.far is None else self.far.canonical()
        return PowerMoments(self.plain.canonical(), powers, self.p, far)

    def finish(
        self, rounding: Callable[[ExactMoments], Moments] = ExactMoments.finish
    ) -> NormMoments:
        """Return the moments in float64, with the norm."""
        moments = rounding(self.plain)
        wide = completed(moments, self.plain, "lp", np.dtype(np.float64))
        if self.powers is None:
            return NormMoments.of(moments, norm_of(wide, self.p), self.p)
        powers = rounding(self.powers)
        if self.p == 1:
            norm = norm_of_powers(powers, self.p)
            if isinstance(wide, WideMoments):
                # In units of the group, where a mean of few magnitudes has all its bits.
                mean, _ = self.powers.scaled(wide.m2_exponent)
                with np.errstate(over="ignore", under="ignore"):
                    scaled = np.ldexp(mean * powers.count, wide.m2_exponent)
                norm = np.where(wide.m2_exponent == 0, norm, scaled)
            return NormMoments.of(moments, norm, self.p)
        largest = largest_magnitude(moments)
        with np.errstate(over="ignore", under="ignore"):
            most = largest**self.p
        overflow = powers.nonfinite != moments.nonfinite
        lost = overflow | ((most < LEAST_POWER) & (largest > 0))
        norm = norm_of_powers(powers, self.p)
        if np.any(lost):
            found = np.full(norm.shape, np.inf)
            if self.p <= LARGEST_P and self.far is not None:
                found = norm_of_far(self.far, self.powers, overflow, self.p)
            norm = np.where(lost, found, norm)
        return NormMoments.of(moments, norm, self.p)
