"""Moving means and variances that float64 alone does not hold.

As `WideMoments` are to `Moments`: of integers beyond 2**53 what the rounding of the mean took away
is kept beside it, and of squares that leave float64 the variance is kept in units of a power of
two. What is kept is all that the next batch needs, so that a fit that continues another one has
the bits of one fit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from normcli.domain.error_free import two_sum
from normcli.domain.extended import Extended
from normcli.domain.moments import Moments
from normcli.domain.moving_step import Step
from normcli.domain.wide_moments import (
    LARGEST_EXACT,
    SQUARE_ROOT_OF_SMALLEST,
    WideMoments,
    beyond_exact,
)

_LEAST_SQUARE = SQUARE_ROOT_OF_SMALLEST**2
# A mean is at most this power of two of units, so that its square fits too.
MEAN_ROOM = 500
# Units that are kept: deviations of all data have some room at both ends.
UNITS = (-1300, 1100)
# Variances below this, in units, lose bits.
LEAST_SCALED = 2.0**-1000
_LARGEST = float(np.finfo(np.float64).max)
_NORMAL = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Beyond:
    """What float64 leaves out of a mean and a variance.

    Attributes
    ----------
    mean_rest : ndarray of float64
        What the mean lacks, in units of ``2**exponent``.
    variance_scaled : ndarray of float64
        The variance in units of ``4**exponent``.
    exponent : ndarray of int64
        0 where the variance, and the square of the mean, fit float64.
    """

    mean_rest: np.ndarray
    variance_scaled: np.ndarray
    exponent: np.ndarray

    @classmethod
    def nothing(cls, variance: np.ndarray) -> Beyond:
        """Return what a mean and this variance lack where they fit."""
        shape = variance.shape
        return cls(np.zeros(shape), variance.copy(), np.zeros(shape, np.int64))

    @property
    def scaled(self) -> bool:
        """Whether any variance does not fit float64."""
        return bool(self.exponent.any())

    def where(self, chosen: np.ndarray, other: Beyond) -> Beyond:
        """Return these where `chosen`, else the others."""
        names = (f.name for f in fields(self))
        return Beyond(*(np.where(chosen, getattr(self, n), getattr(other, n)) for n in names))


class Held(Protocol):
    """A mean and a variance of each group, with what float64 leaves out of them."""

    @property
    def mean(self) -> np.ndarray:
        """Means, rounded to float64."""

    @property
    def variance(self) -> np.ndarray:
        """Variances; infinite beyond float64, and never 0 where they are not."""

    @property
    def beyond(self) -> Beyond | None:
        """What these lack; None where they lack nothing."""


Numbers = tuple[Extended, Extended]
Kept = tuple[np.ndarray, np.ndarray, Beyond]


def beyond_of(moments: Moments, variance: np.ndarray, ddof: int) -> Beyond | None:
    """Return what float64 leaves out of the mean and of this variance of moments."""
    if not isinstance(moments, WideMoments):
        return None
    scaled = moments.units().variance(ddof)
    scaled = np.where(moments.m2_exponent == 0, variance, scaled)
    return Beyond(moments.mean_rest, scaled, moments.m2_exponent)


def start_of(
    moments: Moments, mean: np.ndarray, variance: np.ndarray, ddof: int
) -> tuple[np.ndarray, np.ndarray, Beyond | None]:
    """Return a pooled mean and variance as moving statistics that begin there."""
    if not isinstance(moments, WideMoments):
        return mean, variance, None
    found = beyond_of(moments, variance, ddof)
    assert found is not None
    beyond = Beyond.nothing(variance).where(np.isnan(mean), found)
    far = beyond.exponent != 0
    whole, squares, units = kept(*_numbers(mean, variance, beyond))
    near, rest = two_sum(mean, np.where(far, 0.0, beyond.mean_rest))
    whole, squares = np.where(far, whole, near), np.where(far, squares, variance)
    return whole, squares, units.where(far, Beyond(rest, squares, np.zeros_like(units.exponent)))


def rounded_groups(moments: Moments) -> np.ndarray:
    """Return which groups hold integers beyond 2**53, whose mean has a rest."""
    if isinstance(moments, WideMoments) and not moments.scaled:
        return beyond_exact(moments)
    return np.zeros(moments.shape, bool)


def numbers(held: Held) -> Numbers:
    """Return mean and variance as numbers of any magnitude."""
    return _numbers(held.mean, held.variance, held.beyond)


def _numbers(mean: np.ndarray, variance: np.ndarray, beyond: Beyond | None) -> Numbers:
    if beyond is None:
        return Extended.of(mean), Extended.of(variance)
    exponent = beyond.exponent
    with np.errstate(over="ignore"):
        units = np.ldexp(mean, -exponent) + beyond.mean_rest
    # Where a mean is a normal number, float64 holds it.
    small = (exponent != 0) & (np.abs(mean) < _NORMAL)
    center = Extended.where(small, Extended.of(units, exponent), Extended.of(mean))
    lost = (exponent != 0) & ~_fits(variance)
    scaled = Extended.of(beyond.variance_scaled, 2 * exponent)
    return center, Extended.where(lost, scaled, Extended.of(variance))


def kept(mean: Extended, variance: Extended) -> Kept:
    """Return numbers of any magnitude as they are kept."""
    plain, squares = mean.over(0), variance.over(0)
    # Weights add up to 1, but the roundings of their products may reach over the last number.
    plain = np.where(np.isinf(plain) & np.isfinite(mean.part), np.sign(plain) * _LARGEST, plain)
    power = variance.plus(mean.times(mean))
    lost = ~((_holds(variance) & _holds(power)) | np.isnan(power.part))
    # Of a variance below 2**b the deviation is below 2**((b + 1) // 2).
    deviation = (variance.power + 1) // 2
    # A mean of 0 asks for no room.
    exponent = np.where(
        variance.part == 0, mean.power, np.maximum(deviation, mean.known_power() - MEAN_ROOM)
    )
    exponent = np.where(lost, np.where(exponent == 0, 1, exponent), 0)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        rest = mean.over(exponent) - np.ldexp(plain, -exponent)
    rest = np.where(lost & (np.abs(plain) < _NORMAL), rest, 0.0)
    scaled = np.where(lost, variance.over(2 * exponent), squares)
    least = (squares == 0) & (variance.part > 0)
    squares = np.where(least, np.nextafter(0.0, 1.0), squares)
    return plain, squares, Beyond(rest, np.where(lost, scaled, squares), exponent)


def folded(
    before: Held,
    batch: Held,
    rounded: np.ndarray,
    plain: tuple[np.ndarray, np.ndarray],
    step: Step,
    first: np.ndarray | bool,
) -> tuple[np.ndarray, np.ndarray, Beyond | None]:
    """Return the moving statistics after one more batch, with what float64 leaves out.

    Parameters
    ----------
    before : Held
        The moving statistics.
    batch : Held
        What the batch says.
    rounded : ndarray of bool
        Groups of the batch with integers beyond 2**53.
    plain : tuple of ndarray
        Mean and variance after the batch in float64, which are right for all other groups.
    step : Step
        How it moves them.
    first : ndarray of bool, or bool
        Groups that take the batch as it is.
    """
    mean, variance = plain
    integers = rounded.any() or _known_rests(before) or _known_rests(batch)
    own = before.beyond or Beyond.nothing(before.variance)
    more = batch.beyond or Beyond.nothing(batch.variance)
    beyond = Beyond.nothing(variance)
    if integers:
        paired = rounded | (own.mean_rest != 0) | (np.abs(before.mean) >= LARGEST_EXACT)
        paired &= (own.exponent == 0) & (more.exponent == 0)
        pair = (before.mean, own.mean_rest), (batch.mean, more.mean_rest)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            whole, rest = step.paired(*pair)
        whole = np.where(first, batch.mean, whole)
        rest = np.where(first, more.mean_rest, rest)
        mean = np.where(paired, whole, mean)
        beyond = Beyond(np.where(paired, rest, 0.0), variance, beyond.exponent)
    finite = _finite(before) & _finite(batch)
    far = (own.exponent != 0) | (more.exponent != 0)
    far |= finite & ~(np.isfinite(mean) & np.isfinite(variance))
    if far.any():
        pairs = zip(numbers(before), numbers(batch), strict=True)
        center, spread = (Extended.where(first, b, step.extended(a, b)) for a, b in pairs)
        found = kept(center, spread)
        mean, variance = np.where(far, found[0], mean), np.where(far, found[1], variance)
        beyond = found[2].where(far, beyond)
    if not integers and not beyond.scaled:
        return mean, variance, None
    return mean, variance, beyond


def too_small(variance: np.ndarray, beyond: Beyond, method: str) -> np.ndarray:
    """Return of which groups the variance lost bits in its units, or has no units."""
    lost = (beyond.exponent < UNITS[0]) | (beyond.exponent > UNITS[1])
    if method != "rms":
        # A mean far above it sets the units; of the root of both, its square is all that counts.
        lost |= ~_fits(variance) & (beyond.exponent != 0) & (beyond.variance_scaled < LEAST_SCALED)
    return np.asarray(lost)


def _holds(squares: Extended) -> np.ndarray:
    """Whether float64 holds squares, with all their bits."""
    return np.asarray((squares.part == 0) | (_fits(squares.over(0)) & (squares.over(0) != 0)))


def _fits(squares: np.ndarray) -> np.ndarray:
    return np.asarray(((squares >= _LEAST_SQUARE) & np.isfinite(squares)) | (squares == 0))


def _finite(held: Held) -> np.ndarray:
    return np.asarray(np.isfinite(held.mean) & np.isfinite(held.variance))


def _known_rests(held: Any) -> bool:
    """Whether rests of integers are known, if they are 0 or not."""
    beyond = held.beyond
    if beyond is None:
        return False
    return not beyond.scaled or bool(np.any((beyond.mean_rest != 0) & (beyond.exponent == 0)))
