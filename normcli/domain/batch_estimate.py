"""What one batch says of each group: of its elements, or of its observations on average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normcli.domain.error_free import two_product, two_sum
from normcli.domain.extended import Extended
from normcli.domain.wide_moving import Beyond, kept, numbers


@dataclass(frozen=True)
class BatchEstimate:
    """What one batch says of each group.

    Attributes
    ----------
    mean, variance : ndarray of float64
        What is fed; NaN where that is the outcome of the batch.
    empty : ndarray of bool
        Groups without a finite element, of which the batch says nothing.
    """

    mean: np.ndarray
    variance: np.ndarray
    empty: np.ndarray

    @property
    def beyond(self) -> Beyond | None:
        """What float64 leaves out of them: nothing."""
        return None

    @property
    def rounded(self) -> np.ndarray:
        """Groups with integers beyond 2**53: none."""
        return np.zeros(self.empty.shape, bool)


@dataclass(frozen=True)
class WideEstimate(BatchEstimate):
    """What a batch says of data that float64 does not hold.

    Attributes
    ----------
    left_out : Beyond
        What the mean and the variance lack.
    beyond_exact : ndarray of bool
        Groups with integers beyond 2**53.
    """

    left_out: Beyond
    beyond_exact: np.ndarray

    @property
    def beyond(self) -> Beyond:
        """What float64 leaves out of them."""
        return self.left_out

    @property
    def rounded(self) -> np.ndarray:
        """Groups with integers beyond 2**53."""
        return self.beyond_exact


class InstanceAverage:
    """The plain average of the statistics of the observations of one batch.

    Observations without a finite element in a group do not count for it. They are added one after
    the other, so that the sum does not depend on how many come at once.

    What the roundings of the sum of means take away is added up beside it (Ogita, Rump and Oishi
    2005, algorithm 4.4): a sum as if of twice the bits, for integers beyond 2**53.
    """

    def __init__(self) -> None:
        self._sums: tuple[np.ndarray, ...] | None = None
        self._lost: np.ndarray = np.zeros(())
        self._rounded: np.ndarray = np.zeros((), bool)
        self._far: np.ndarray = np.zeros((), bool)
        # Sums of any magnitude, once there is an observation that needs them.
        self._wide: tuple[Extended, Extended] | None = None

    def add(self, found: BatchEstimate, axis: int) -> None:
        """Take the statistics of the next observations, which follow each other along an axis."""
        terms = tuple(
            np.moveaxis(values, axis, 0)
            for values in (
                np.where(found.empty, 0.0, found.mean),
                np.where(found.empty, 0.0, found.variance),
                (~found.empty).astype(np.float64),
            )
        )
        before = self._sums or tuple(np.zeros(part.shape[1:]) for part in terms)
        with np.errstate(over="ignore", invalid="ignore"):
            partial = tuple(
                np.add.accumulate(np.concatenate([start[np.newaxis], part]))
                for start, part in zip(before, terms, strict=True)
            )
            _, lost = two_sum(partial[0][:-1], terms[0])
            if found.beyond is not None:
                rest = np.where(
                    found.empty | (found.beyond.exponent != 0), 0, found.beyond.mean_rest
                )
                lost = lost + np.moveaxis(rest, axis, 0)
            start = np.broadcast_to(self._lost, before[0].shape)[np.newaxis]
            self._lost = np.add.accumulate(np.concatenate([start, lost]))[-1]
        self._sums = tuple(part[-1] for part in partial)
        self._rounded = self._rounded | (found.rounded & ~found.empty).any(axis)
        self._add_beyond(found, axis, before)

    def _add_beyond(self, found: BatchEstimate, axis: int, before: tuple[np.ndarray, ...]) -> None:
        """Add what leaves float64, or what does so in the sums."""
        assert self._sums is not None
        held = BatchEstimate(before[0], before[1], np.zeros(before[0].shape, bool))
        far = (found.empty | _finite(found.mean, found.variance)).all(axis)
        far &= _finite(*before[:2]) & ~_finite(*self._sums[:2])
        if found.beyond is not None:
            far |= (~found.empty & (found.beyond.exponent != 0)).any(axis)
        self._far = self._far | far
        if self._wide is None and not far.any():
            return
        mean, variance = self._wide or numbers(held)
        none = Extended.of(np.zeros(found.empty.shape))
        means, variances = (
            Extended.where(found.empty, none, term).along(axis) for term in numbers(found)
        )
        for i in range(means.shape[0]):
            mean, variance = mean.plus(means[i]), variance.plus(variances[i])
        self._wide = mean, variance

    def estimate(self) -> BatchEstimate:
        """Return the average over the observations so far, of which there is one or more."""
        assert self._sums is not None
        total, squares, seen = self._sums
        count = np.maximum(seen, 1)
        mean, variance, empty = total / count, squares / count, seen == 0
        if self._wide is None and not self._rounded.any():
            return BatchEstimate(mean, variance, empty)
        beyond = Beyond.nothing(variance)
        if self._rounded.any():
            product, below = two_product(mean, count)
            # The remainder of a division is a float64 number.
            whole, rest = two_sum(mean, ((total - product) - below + self._lost) / count)
            mean = np.where(self._rounded, whole, mean)
            beyond = Beyond(np.where(self._rounded, rest, 0.0), variance, beyond.exponent)
        if self._wide is not None:
            found = kept(*(own.divided(count) for own in self._wide))
            mean = np.where(self._far, found[0], mean)
            variance = np.where(self._far, found[1], variance)
            beyond = found[2].where(self._far, beyond)
        return WideEstimate(mean, variance, empty, beyond, self._rounded)


def _finite(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(mean) & np.isfinite(variance))
