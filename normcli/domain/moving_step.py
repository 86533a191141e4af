"""One step of a moving average, in float64, to twice its bits, and beyond its range.

The first is what frameworks compute, to the bit. The others are the same formula with exact
weights: ``1 - 0.3`` is rounded in float64, and 2**-54 of nanoseconds since 1970 are 94 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from normcli.domain.error_free import two_product, two_sum
from normcli.domain.extended import Extended

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What one batch does to an average.

    Attributes
    ----------
    old : float or None
        Weight of the old value; None for the plain average, which moves by a share of the
        difference.
    new : float
        Weight of the batch, rounded.
    rest : float
        What its rounding took away, to 53 bits.
    """

    old: float | None
    new: float
    rest: float

    @classmethod
    def exponential(cls, old: float) -> Step:
        """Return the step ``old * before + (1 - old) * batch``."""
        new = 1.0 - old
        return cls(old, new, float(1 - Fraction(old) - Fraction(new)))

    @classmethod
    def cumulative(cls, batches: int) -> Step:
        """Return the step of the plain average, of which this is batch number `batches`."""
        new = 1.0 / batches
        return cls(None, new, float(Fraction(1, batches) - Fraction(new)))

    def plain(self, before: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Return the average after the batch, in float64."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self.old is None:
                return np.asarray(before + (batch - before) * self.new)
            return np.asarray(self.old * before + self.new * batch)

    def paired(self, before: Pair, batch: Pair) -> Pair:
        """Return the average after the batch, where all are sums of two float64 numbers.

        `plain`, and beside it what its roundings took away, each exactly, with what the rests add.
        Of numbers up to 2**64 these are below 2**13, and each of the few roundings among them takes
        less than 2**-39.

        Parameters
        ----------
        before, batch : tuple of ndarray
            Numbers below 2**990, and rests of some units in their last place at most.

        Returns
        -------
        tuple of ndarray
            The sum rounded to float64, and the rest, at most half a unit in its last place.
        """
        (mean, below), (value, low) = before, batch
        if self.old is None:
            far, lost_far = two_sum(value, -mean)
            moved, lost_moved = two_product(far, self.new)
            total, lost = two_sum(mean, np.asarray(moved))
            rest = lost + lost_moved + far * self.rest
            rest = rest + (lost_far + (low - below)) * self.new + below
        else:
            kept, lost_kept = two_product(self.old, mean)
            moved, lost_moved = two_product(self.new, value)
            total, lost = two_sum(np.asarray(kept), np.asarray(moved))
            rest = lost + lost_kept + lost_moved + value * self.rest
            rest = rest + (self.old * below + self.new * low)
        return two_sum(total, rest)

    def extended(self, before: Extended, batch: Extended) -> Extended:
        """Return `plain` as if the exponents of float64 had no end."""
        new = Extended.of(np.asarray(self.new))
        if self.old is None:
            return before.plus(batch.plus(before.negative()).times(new))
        return before.times(Extended.of(np.asarray(self.old))).plus(batch.times(new))
