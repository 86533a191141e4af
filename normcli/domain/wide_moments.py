"""Moments of numbers that float64 alone does not hold: mean and squares with what is beyond it.

Two kinds of data need more than `Moments`. Integers beyond 2**53 have a mean whose rounding reaches
their spread, so that what the rounding took away is kept beside it. And magnitudes whose squares
leave float64 have their sum of squares in units of a power of two. Both follow from the exact sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from normcli.domain import limbs
from normcli.domain.error_free import two_sum
from normcli.domain.exact_moments import AT_ONCE, ExactMoments
from normcli.domain.moments import Moments

# Integers up to this are float64 numbers.
LARGEST_EXACT = 2.0**53
# Squares of smaller magnitudes lose some of their 53 bits in float64.
SQUARE_ROOT_OF_SMALLEST = 1e-140
_WELL_WITHIN = 1e150

Rests = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class WideMoments(Moments):
    """Moments, and what their float64 numbers leave out.

    ``mean`` and ``m2`` are those of `Moments`: rounded to float64, and ``m2`` infinite, 0 or short
    of bits where it does not fit.

    Attributes
    ----------
    mean_rest : ndarray of float64
        What the mean lacks, in units of ``2**m2_exponent``: the mean divided by that unit is
        ``mean * 2**-m2_exponent + mean_rest``.
    m2_scaled : ndarray of float64
        The sum of squared deviations in units of ``4**m2_exponent``.
    m2_exponent : ndarray of int64
        0 where m2 fits float64; else such that no element reaches ``2**m2_exponent``.
    minimum_rest, maximum_rest : ndarray of float64
        What the extremes of integers lack: the minimum is ``minimum + minimum_rest``. NaN where it
        is not known, because only the method ``minmax`` asks for it; floats lack nothing.
    """

    mean_rest: np.ndarray
    m2_scaled: np.ndarray
    m2_exponent: np.ndarray
    minimum_rest: np.ndarray
    maximum_rest: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> WideMoments:
        """Return the moments of nothing."""
        return wide(Moments.identity(shape))

    @property
    def scaled(self) -> bool:
        """Whether any m2 does not fit float64."""
        return bool(self.m2_exponent.any())

    def units(self) -> Moments:
        """Return the moments of the elements divided by ``2**m2_exponent``, without rests."""
        turn = -self.m2_exponent
        with np.errstate(over="ignore", under="ignore"):
            return Moments(
                self.count,
                np.where(turn == 0, self.mean, np.ldexp(self.mean, turn) + self.mean_rest),
                self.m2_scaled,
                np.ldexp(self.minimum, turn),
                np.ldexp(self.maximum, turn),
                self.nonfinite,
            )

    def variance(self, ddof: int = 0) -> np.ndarray:
        """Return the variance: infinite beyond float64, and never 0 of elements that vary."""
        with np.errstate(over="ignore", under="ignore"):
            scaled = self.units().variance(ddof)
            found = np.ldexp(scaled, 2 * self.m2_exponent)
        return np.where((found == 0) & (scaled > 0), np.nextafter(0.0, 1.0), found)

    def deviation(self, ddof: int = 0) -> np.ndarray:
        """Return the square root of the variance, which fits where the variance does not."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self.units().deviation(ddof), self.m2_exponent)

    def merge(self, other: Moments) -> WideMoments:
        """Return the moments of the union of two disjoint sets of elements."""
        more = wide(other)
        plain = Moments.merge(self, more)
        beyond = leaves_float64(plain) | (self.m2_exponent != 0) | (more.m2_exponent != 0)
        exponent = np.where(beyond, _exponent(plain), 0)
        mine, theirs = self._in_units(exponent), more._in_units(exponent)
        part = more.count / np.maximum(plain.count, 1)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            delta = (theirs[0] - mine[0]) + (theirs[1] - mine[1])
            mean, lost = two_sum(mine[0], delta * part)
            mean, rest = two_sum(mean, lost + mine[1])
            m2 = mine[2] + theirs[2] + delta * delta * (self.count * part)
            for only, side in ((more.count == 0, mine), (self.count == 0, theirs)):
                mean, rest, m2 = (
                    np.where(only, a, b) for a, b in zip(side, (mean, rest, m2), strict=True)
                )
            whole = np.ldexp(mean, exponent)
            rest = rest + (mean - np.ldexp(whole, -exponent))
            squares = np.ldexp(m2, 2 * exponent)
        ends = rests_of_extremes(
            self, (self.minimum_rest, self.maximum_rest),
            more, (more.minimum_rest, more.maximum_rest),
        )  # fmt: skip
        return WideMoments(
            plain.count, whole, squares, plain.minimum, plain.maximum, plain.nonfinite,
            rest, m2, exponent, *ends,
        )  # fmt: skip

    def with_sums(self, moments: Moments) -> Moments:
        """Return other moments of the same elements, with what is known of the extremes."""
        if not isinstance(moments, WideMoments):
            return moments
        low, high = moments.minimum_rest, moments.maximum_rest
        return replace(
            moments,
            minimum_rest=np.where(np.isnan(low), self.minimum_rest, low),
            maximum_rest=np.where(np.isnan(high), self.maximum_rest, high),
        )

    def _in_units(self, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        turn = self.m2_exponent - exponent
        with np.errstate(over="ignore", under="ignore"):
            return (
                np.ldexp(self.mean, -exponent),
                np.ldexp(self.mean_rest, turn),
                np.ldexp(self.m2_scaled, 2 * turn),
            )


def wide(moments: Moments) -> WideMoments:
    """Return moments that fit float64 as wide ones, which leave nothing out."""
    if isinstance(moments, WideMoments):
        return moments
    held = {name: getattr(moments, name) for name in Moments.names()}
    unknown = np.where(beyond_exact(moments), np.nan, 0.0)
    return WideMoments(
        **held,
        mean_rest=np.zeros(moments.shape),
        m2_scaled=moments.m2.copy(),
        m2_exponent=np.zeros(moments.shape, np.int64),
        minimum_rest=unknown,
        maximum_rest=unknown.copy(),
    )


def merged(a: Moments, b: Moments) -> Moments:
    """Return the moments of the union of two disjoint sets of elements, wide if either is."""
    return (wide(a) if isinstance(b, WideMoments) else a).merge(b)


def rests_of_extremes(
    first: Moments | ExactMoments, own: Rests, second: Moments | ExactMoments, other: Rests
) -> Rests:
    """Return what the rounded minimum and maximum of a union lack.

    Parameters
    ----------
    first, second : Moments or ExactMoments
        Of two disjoint sets of elements.
    own, other : tuple of ndarray
        What the minimum and the maximum of each lack.
    """
    # Rounding keeps the order; of those that it makes equal, rests say which is farther out.
    low = np.where(first.minimum < second.minimum, own[0], other[0])
    low = np.where(first.minimum == second.minimum, np.minimum(own[0], other[0]), low)
    high = np.where(first.maximum > second.maximum, own[1], other[1])
    high = np.where(first.maximum == second.maximum, np.maximum(own[1], other[1]), high)
    return low, high


def completed(moments: Moments, sums: ExactMoments, method: str, dtype: np.dtype) -> Moments:
    """Return moments with what float64 leaves out of them, where it leaves out anything.

    Parameters
    ----------
    moments : Moments
        Rounded from `sums`. Those with quantiles or a norm are returned as they are.
    sums : ExactMoments
        Of the same groups.
    method : str
        Decides which squares are needed.
    dtype : numpy.dtype
        Type of the elements.
    """
    if type(moments) is not Moments or dtype.kind not in "iuf" or dtype.itemsize < 8:
        return moments
    integers = dtype.kind in "iu"
    need = beyond_exact(moments) if integers else leaves_float64(moments, method)
    if not np.any(need):
        return moments
    found = wide(moments)
    part = sums[need] if need.ndim else sums.reshape((1,))
    center = moments.mean[need].reshape(-1)
    pieces = [slice(i, i + AT_ONCE) for i in range(0, center.size, AT_ONCE)]
    if integers:
        rest = np.concatenate([_rest_of_integers(part[i], center[i]) for i in pieces])
        found.mean_rest[need] = rest if need.ndim else rest[0]
        return found
    for ends in (found.minimum_rest, found.maximum_rest):
        ends[...] = 0.0  # Those of floats are exact.
    exponent = _exponent(moments)[need].reshape(-1)
    scaled = [part[i].scaled(exponent[i]) for i in pieces]
    mean, m2 = (np.concatenate(values) for values in zip(*scaled, strict=True))
    with np.errstate(under="ignore"):
        rest = mean - np.ldexp(center, -exponent)
    for name, values in (("mean_rest", rest), ("m2_scaled", m2), ("m2_exponent", exponent)):
        getattr(found, name)[need] = values if need.ndim else values[0]
    return found


def beyond_exact(moments: Moments) -> np.ndarray:
    """Return which groups hold magnitudes beyond 2**53, or may: 2**53 + 1 is rounded to it."""
    return (moments.count > 0) & (
        (moments.maximum >= LARGEST_EXACT) | (moments.minimum <= -LARGEST_EXACT)
    )


def leaves_float64(moments: Moments, method: str = "zscore") -> np.ndarray:
    """Return of which groups the squares leave float64, or lose bits there.

    Parameters
    ----------
    moments : Moments
        Of float64 data.
    method : str
        With ``rms`` squares are those of the elements, otherwise those of deviations; methods that
        subtract nothing divide by the magnitudes themselves.
    """
    if squares_surely_fit(moments):
        return np.zeros(moments.shape, bool)
    seen = moments.count > 0
    low, high = np.where(seen, moments.minimum, 0.0), np.where(seen, moments.maximum, 0.0)
    beyond = ~np.isfinite(moments.m2)
    with np.errstate(over="ignore"):
        size = (
            np.maximum(np.abs(low), np.abs(high))
            if method in ("rms", "maxabs", "lp")
            else high - low
        )
    if method == "rms":
        beyond |= ~np.isfinite(np.where(seen, moments.mean_square(), 0.0))
    if method != "center":
        beyond |= (size > 0) & (size < SQUARE_ROOT_OF_SMALLEST)
    if method == "minmax":
        beyond |= ~np.isfinite(size)
    return np.asarray(seen & beyond)


def squares_surely_fit(moments: Moments) -> bool:
    """Whether every group has a spread, and no square comes near the ends of float64.

    Most data need no closer look: 15 us for 4096 groups, where that takes 52.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        spread = moments.maximum - moments.minimum
        # NaN and empty groups, which hold infinities, compare false.
        return bool(
            np.all(spread >= 2 * SQUARE_ROOT_OF_SMALLEST)
            and np.all(np.abs(moments.mean) < _WELL_WITHIN)
            and np.all(moments.m2 < _WELL_WITHIN**2)
        )


def _exponent(moments: Moments) -> np.ndarray:
    """Return the power of two above every magnitude of a group."""
    seen = moments.count > 0
    largest = np.maximum(np.abs(moments.minimum), np.abs(moments.maximum))
    return np.frexp(np.where(seen, largest, 0.0))[1].astype(np.int64)


def _rest_of_integers(sums: ExactMoments, mean: np.ndarray) -> np.ndarray:
    """Return mean of integers less its rounding, to 53 bits, or to 2**-53."""
    flat = sums.reshape((sums.count.size,))
    # The whole part of the rounded mean, up to 2**64, in three digits; all steps are exact.
    part = np.abs(mean)
    digits = []
    for place in (2 * limbs.DIGIT, limbs.DIGIT, 0):
        digit = np.floor(np.ldexp(part, -place))
        part = part - np.ldexp(digit, place)
        digits.append(digit.astype(np.int64))
    count = np.maximum(flat.count, 1)
    times = np.stack([count & limbs.MASK, count >> limbs.DIGIT], axis=-1)
    rounded = limbs.carry(limbs.product(np.stack(digits[::-1], axis=-1), times))
    total, negative = limbs.digits(limbs.moved(flat.total, flat.exponent))
    width = max(total.shape[-1], rounded.shape[-1])
    left = limbs.padded(total, width) - limbs.padded(rounded, width)
    number, below = limbs.digits(left)
    rest = limbs.quotient(number, count, np.zeros_like(count))
    rest = np.where(below, -rest, rest) - part
    return np.where(negative, -rest, rest)
