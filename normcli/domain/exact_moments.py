"""Moments before they are rounded: exact sums, the same whatever the order they are made in.

The sum of the elements of a group and the sum of their squares are kept as integers of as many
bits as they need, so merging is an addition of integers. The mean ``S / n`` and the sum of squared
deviations ``(n * Q - S**2) / n`` are rounded once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from normcli.domain import limbs
from normcli.domain.dtypes import is_bfloat16, is_float
from normcli.domain.limbs import DIGIT
from normcli.domain.moments import Moments

# Digits of as many sums as a group has elements below this fit in int64 without a carry.
_UNCARRIED = 1 << 30
# Groups rounded at once: temporaries are some 600 bytes each.
AT_ONCE = 1 << 12

Terms = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ExactMoments:
    """Exact sums of the finite elements of each group, and what else `Moments` hold.

    All arrays have the shape of the groups, `total` and `squares` one axis of limbs more.

    Attributes
    ----------
    count, nonfinite : ndarray of int64
        As in `Moments`.
    minimum, maximum : ndarray of float64
        As in `Moments`; never -0.0, which no order could tell from 0.0.
    exponent : ndarray of int64
        Unit of the sums: ``2**(32 * exponent)`` for `total`, its square for `squares`.
    total, squares : ndarray of int64
        Sums of the elements and of their squares (see `limbs`).
    """

    count: np.ndarray
    nonfinite: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    exponent: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> ExactMoments:
        """Return the moments of nothing, which change nothing that they are merged with."""
        return cls(
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros(shape, np.int64),
            np.zeros((*shape, 1), np.int64),
            np.zeros((*shape, 1), np.int64),
        )

    @classmethod
    def of_terms(
        cls,
        count: np.ndarray,
        nonfinite: np.ndarray,
        minimum: np.ndarray,
        maximum: np.ndarray,
        total: Terms,
        squares: Terms,
    ) -> ExactMoments:
        """Return moments whose sums are those of ``value * 2**bit`` over some terms."""
        far = np.int64(1) << 40
        lowest = np.full(count.shape, far, np.int64)
        for terms, per_unit in ((total, DIGIT), (squares, 2 * DIGIT)):
            for value, bit in terms:
                lowest = np.where(value != 0, np.minimum(lowest, bit // per_unit), lowest)
        exponent = np.where(lowest == far, 0, lowest)
        return cls(
            count,
            nonfinite,
            minimum,
            maximum,
            exponent,
            limbs.of_terms(total, DIGIT * exponent),
            limbs.of_terms(squares, 2 * DIGIT * exponent),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the groups."""
        return self.count.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def __getitem__(self, index: Any) -> ExactMoments:
        """Return the moments of some of the groups, by an index that leaves the limbs alone."""
        return ExactMoments(*(getattr(self, f.name)[index] for f in fields(self)))

    def reshape(self, shape: tuple[int, ...]) -> ExactMoments:
        """Return the same moments with their groups in another shape."""
        if shape == self.shape:
            return self
        return ExactMoments(
            *(
                held.reshape(shape + held.shape[len(self.shape) :])
                for held in (getattr(self, f.name) for f in fields(self))
            )
        )

    def store(self, index: Any, part: ExactMoments) -> ExactMoments:
        """Put the moments of some groups in place, and return the whole.

        The arrays of this object are changed, or replaced in what is returned where the part
        needs more limbs.
        """
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("total", "squares"):
            size = max(held[name].shape[-1], getattr(part, name).shape[-1])
            held[name] = limbs.padded(held[name], size)
        for name, array in held.items():
            value = getattr(part, name)
            if name in ("total", "squares"):
                value = limbs.padded(value, array.shape[-1])
            array[index] = value
        return ExactMoments(**held)

    def merge(self, other: ExactMoments) -> ExactMoments:
        """Return the moments of the union of two disjoint sets of elements.

        Associative and commutative in the numbers that the arrays stand for.
        """
        count = self.count + other.count
        if np.array_equal(self.exponent, other.exponent):
            exponent = self.exponent
            total, squares = self.total, self.squares
            more_total, more_squares = other.total, other.squares
        else:
            exponent, total, squares, more_total, more_squares = self._aligned(other)
        total, squares = _sum(total, more_total), _sum(squares, more_squares)
        if count.max(initial=0) >= _UNCARRIED:
            total, squares = limbs.carry(total), limbs.carry(squares)
        return ExactMoments(
            count,
            self.nonfinite + other.nonfinite,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            exponent,
            total,
            squares,
        )

    def union(self, axis: int) -> ExactMoments:
        """Return the moments of the union of all groups along an axis, which is dropped.

        In halves, so that there are few calls over many groups; the order changes no number.
        """
        held = self
        before = (slice(None),) * axis
        while held.shape[axis] > 1:
            half = held.shape[axis] // 2
            rest = held[(*before, slice(2 * half, None))]
            merged = held[(*before, slice(0, half))].merge(held[(*before, slice(half, 2 * half))])
            held = merged if not rest.count.size else merged.appended(rest, axis)
        return held[(*before, 0)]

    def appended(self, other: ExactMoments, axis: int) -> ExactMoments:
        """Return these groups, and those of `other` behind them along an axis."""
        shape = list(self.shape)
        shape[axis] += other.shape[axis]
        before = (slice(None),) * axis
        both = ExactMoments.identity(tuple(shape))
        both = both.store((*before, slice(0, self.shape[axis])), self)
        return both.store((*before, slice(self.shape[axis], None)), other)

    def _aligned(self, other: ExactMoments) -> tuple[np.ndarray, ...]:
        """Return the lower of both exponents, and the sums of both in its units."""
        mine, theirs = self.squares.any(axis=-1), other.squares.any(axis=-1)
        first = np.where(mine, self.exponent, np.where(theirs, other.exponent, 0))
        second = np.where(theirs, other.exponent, first)
        exponent = np.minimum(first, second)
        up, down = first - exponent, second - exponent
        return (
            exponent,
            limbs.moved(self.total, up),
            limbs.moved(self.squares, 2 * up),
            limbs.moved(other.total, down),
            limbs.moved(other.squares, 2 * down),
        )

    def canonical(self) -> ExactMoments:
        """Return the same moments in the one form that depends on the numbers alone.

        The exponent of a group is the largest that its sums are multiples of (0 where they are
        0), and limbs are those of `limbs.shortest`: whatever was merged in whatever order, equal
        sums are equal bits.
        """
        total, squares = limbs.shortest(self.total), limbs.shortest(self.squares)
        some = squares.any(axis=-1)
        steps = np.minimum(limbs.zeros_below(total), limbs.zeros_below(squares) // 2)
        steps = np.where(some, steps, 0)
        return ExactMoments(
            self.count,
            self.nonfinite,
            self.minimum,
            self.maximum,
            np.where(some, self.exponent + steps, 0),
            limbs.shortest(limbs.lowered(total, steps)),
            limbs.shortest(limbs.lowered(squares, 2 * steps)),
        )

    def finish(self) -> Moments:
        """Return the moments in float64: mean and m2 correctly rounded."""
        if self.count.size <= AT_ONCE:
            return self._finish()
        flat = self.reshape((self.count.size,))
        found = Moments.identity(flat.shape)
        for start in range(0, self.count.size, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found.store(part, flat[part]._finish())
        return Moments(*(getattr(found, f.name).reshape(self.shape) for f in fields(found)))

    def _finish(self) -> Moments:
        mean, m2 = self.scaled(np.zeros_like(self.count))
        return Moments(
            self.count.copy(),
            mean,
            m2,
            self.minimum.copy(),
            self.maximum.copy(),
            self.nonfinite.copy(),
        )

    def scaled(self, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and m2 of the elements divided by a power of two, correctly rounded.

        Parameters
        ----------
        exponent : ndarray of int64
            Elements are divided by ``2**exponent``.

        Returns
        -------
        mean, m2 : ndarray of float64
            Infinite where they leave float64.
        """
        count = np.maximum(self.count, 1)
        bit = DIGIT * self.exponent
        total, negative = limbs.digits(self.total)
        squares, _ = limbs.digits(self.squares)
        mean = limbs.quotient(total, count, bit - exponent)
        times = np.stack([count & limbs.MASK, count >> DIGIT], axis=-1)
        # n * Q - S**2 is not negative, by the inequality of Cauchy and Schwarz.
        scaled, square = limbs.product(squares, times), limbs.product(total, total)
        size = max(scaled.shape[-1], square.shape[-1])
        spread = limbs.carry(limbs.padded(scaled, size) - limbs.padded(square, size))
        with np.errstate(over="ignore"):
            m2 = limbs.quotient(spread, count, 2 * (bit - exponent))
        return np.where(negative, -mean, mean), m2


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = max(a.shape[-1], b.shape[-1])
    return limbs.padded(a, size) + limbs.padded(b, size)


# Bits of a count, and the sign.
_COUNT_BITS = 64
# Lowest and highest exponent of a unit that finite float64 are multiples of: the lowest bit of all
# is 2**-1074, the highest 2**1023.
EXPONENTS = (-1074 // DIGIT, 1023 // DIGIT + _COUNT_BITS // DIGIT)


def most_limbs(dtype: np.dtype) -> tuple[int, int]:
    """Return the most limbs that canonical sums of elements of a type have, and of their squares.

    With n < 2**63 elements of magnitude 2**high at most that are multiples of ``2**(32 * unit)``,
    the sum is n * 2**high at most and the sum of squares n * 2**(2 * high).
    """
    if is_bfloat16(dtype):
        low, high = -133, 128
    elif is_float(dtype):
        info = np.finfo(dtype)
        low, high = int(info.minexp) - int(info.nmant), int(info.maxexp)
    else:
        low, high = 0, 8 * dtype.itemsize
    unit = low // DIGIT
    total = -(-(high + _COUNT_BITS - DIGIT * unit) // DIGIT)
    squares = -(-(2 * high + _COUNT_BITS - 2 * DIGIT * unit) // DIGIT)
    return total, squares
