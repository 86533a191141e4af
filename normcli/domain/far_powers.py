"""Sums of powers that leave float64, in bands of exponents of their own.

A power is ``m * 2**E`` with an integer E of any size. Powers whose E share ``E // 512`` form a
band, whose sums are exact and in units of ``2**(512 * band)``. Of each group the highest band and
the one below it are kept. What is lower is below ``2**-512`` of the highest power, and all of up to
2**63 elements do not reach the last bit of the sum. The highest band follows from the elements
alone, so that no cut and no order changes a bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.limbs import DIGIT

# Binades of a band: its powers and their squares stay within float64.
BAND = 512
# Mantissas to a larger p would leave float64.
LARGEST_P = 1000.0
# The band of no elements, below every other.
_NONE = -(1 << 40)
# A multiple of 2**-26 below 1 times an exponent is exact.
_HALF = 2.0**26


@dataclass(frozen=True)
class FarPowers:
    """Exact sums of the powers of each group, in its two highest bands.

    Attributes
    ----------
    band : ndarray of int64
        The highest band of each group.
    upper, lower : ExactMoments
        Of the powers in that band and in the one below, each in units of ``2**(512 * band)`` of
        its own band.
    """

    band: np.ndarray
    upper: ExactMoments
    lower: ExactMoments

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> FarPowers:
        """Return the sums of nothing, which change nothing that they are merged with."""
        band = np.full(shape, _NONE, np.int64)
        return cls(band, ExactMoments.identity(shape), ExactMoments.identity(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the groups."""
        return self.band.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return self.band.nbytes + self.upper.nbytes + self.lower.nbytes

    def __getitem__(self, index: Any) -> FarPowers:
        """Return the sums of some of the groups."""
        return FarPowers(self.band[index], self.upper[index], self.lower[index])

    def reshape(self, shape: tuple[int, ...]) -> FarPowers:
        """Return the same sums with their groups in another shape."""
        upper, lower = self.upper.reshape(shape), self.lower.reshape(shape)
        return FarPowers(self.band.reshape(shape), upper, lower)

    def store(self, index: Any, part: FarPowers) -> FarPowers:
        """Put some groups in place, and return the whole."""
        self.band[index] = part.band
        upper, lower = self.upper.store(index, part.upper), self.lower.store(index, part.lower)
        return FarPowers(self.band, upper, lower)

    def merge(self, other: FarPowers) -> FarPowers:
        """Return the sums of the union of two disjoint sets of elements."""
        band = np.maximum(self.band, other.band)
        (a, below), (b, more) = self._in_band(band), other._in_band(band)
        return FarPowers(band, a.merge(b), below.merge(more))

    def canonical(self) -> FarPowers:
        """Return the same with sums in their canonical form."""
        return replace(self, upper=self.upper.canonical(), lower=self.lower.canonical())

    def _in_band(self, band: np.ndarray) -> tuple[ExactMoments, ExactMoments]:
        """Return the sums in a band, as high as the own one or higher, and in that below it."""
        same, next_one = band == self.band, band == self.band + 1
        if same.all():
            return self.upper, self.lower
        lower = _some(self.lower, same).merge(_some(self.upper, next_one))
        return _some(self.upper, same), lower


def some_powers(values: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``values**p`` as a mantissa from 1/2 to 1 and an exponent, right to 3 roundings.

    Parameters
    ----------
    values : ndarray of float64
        Positive and finite.
    p : float
        From 1 to `LARGEST_P`.

    Returns
    -------
    mantissa : ndarray of float64
    exponent : ndarray of int64
    """
    mantissa, exponent = np.frexp(values)
    exponent = exponent.astype(np.int64)
    # From sqrt(1/2) to sqrt(2), whose powers stay within 2**(p / 2).
    small = mantissa < np.sqrt(0.5)
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    whole, part = _times(exponent, p)
    power, more = np.frexp(np.power(mantissa, p) * np.exp2(part))
    return power, whole + more


def band_of(exponent: np.ndarray) -> np.ndarray:
    """Return the band of powers of these exponents."""
    return exponent // BAND


def in_band(mantissa: np.ndarray, exponent: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Return powers in units of ``2**(512 * band)``, exactly where they are in this band."""
    return np.asarray(np.ldexp(mantissa, (exponent - BAND * band).clip(-2 * BAND, 2 * BAND)))


def norm_of_far(far: FarPowers, near: ExactMoments, overflow: np.ndarray, p: float) -> np.ndarray:
    """Return the norm of groups whose powers leave float64; 0 for groups without any.

    Parameters
    ----------
    far : FarPowers
        Of the powers that leave float64.
    near : ExactMoments
        Of those that do not.
    overflow : ndarray of bool
        Groups whose largest powers are beyond float64, and of which `near` is a part. That of the
        others is in `far` as a whole.
    p : float
        The p.
    """
    seen = far.band > _NONE
    band = np.where(seen, far.band, 0)
    # Powers that fit are in the bands up to 2: none of them reaches the last bit of a band 4.
    near = _raised(_some(near, overflow & (band <= 3)), -band)
    total = far.upper.merge(_raised(far.lower, np.full(band.shape, -1))).merge(near)
    mean, exponent = np.frexp(total.finish().mean)
    power, more = np.frexp(mean * total.count)
    root = power ** (1 / p)
    # 2**(bits / p) is a power of two times the p-th root of what is left, and the error of 1 / p
    # is multiplied by few bits.
    bits = BAND * band + exponent + more
    steps = np.rint(bits / p).astype(np.int64)
    whole, part = _times(steps, p)
    with np.errstate(over="ignore", under="ignore"):
        norm = np.ldexp(root * np.exp2(((bits - whole) - part) / p), steps)
    return np.where(seen, norm, 0.0)


def _times(numbers: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``p * numbers`` as an integer and what is beyond it, from -1 to 1, rounded once."""
    whole = np.floor(p)
    high = np.floor((p - whole) * _HALF) / _HALF
    low = (p - whole) - high
    most = high * numbers
    steps = np.floor(most)
    found = int(whole) * numbers + steps.astype(np.int64)
    return found, (most - steps) + low * numbers


def _some(sums: ExactMoments, chosen: np.ndarray) -> ExactMoments:
    """Return the sums of some groups, and those of nothing for the others."""
    if chosen.all():
        return sums
    return ExactMoments.identity(sums.shape).store(chosen, sums[chosen])


def _raised(sums: ExactMoments, bands: np.ndarray) -> ExactMoments:
    """Return the sums of elements that are multiplied by ``2**(512 * bands)``."""
    some = sums.squares.any(axis=-1)
    steps = np.where(some, BAND // DIGIT * bands, 0)
    return replace(sums, exponent=sums.exponent + steps)
