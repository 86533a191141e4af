"""Moving statistics over consecutive batches of observations.

With ``m`` the weight of the old value: ``M <- m M + (1 - m) mean_k`` and
``V <- m V + (1 - m) v_k`` (exponential), or the plain average of the batch statistics
(cumulative). ``v_k`` is the batch variance with divisor n or n - 1. A short last batch has the
weight of a full one, as in PyTorch, Keras, Flax and ONNX.

PyTorch's InstanceNorm with ``track_running_stats`` keeps the same for statistics of observations:
``mean_k`` and ``v_k`` are then the plain averages of mean and variance over the observations of
batch k, each with its own divisor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from normcli.domain.moments import Moments
from normcli.errors import DataPolicyError


@dataclass(frozen=True)
class MovingRule:
    """How moving statistics are kept.

    Attributes
    ----------
    momentum : float or None
        Weight of the OLD value, from 0 to 1; None is the plain average of all batches.
    batch_sizes : tuple of int
        Observations in a batch; several are taken in turn, the last one repeats.
    variance : {"biased", "unbiased"}
        Divisor n or n - 1 of the batch variance that is fed.
    start : str
        ``zeros-ones``, ``first-batch`` or the path of the statistics that were continued.
    instances : bool
        Whether a batch is fed as the average of the statistics of its observations, as
        PyTorch's InstanceNorm does, and not as one group of elements.
    frozen : bool
        Whether the last fit left them as they were, as a momentum of 1 would.
    """

    momentum: float | None
    batch_sizes: tuple[int, ...]
    variance: str = "biased"
    start: str = "zeros-ones"
    instances: bool = False
    frozen: bool = False

    @property
    def segment(self) -> int:
        """Consecutive observations that are measured together; batches consist of whole ones."""
        return 1 if self.instances else gcd(*self.batch_sizes)


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


class InstanceAverage:
    """The plain average of the statistics of the observations of one batch.

    Observations without a finite element in a group do not count for it. They are added one after
    the other, so that the sum does not depend on how many come at once.
    """

    def __init__(self) -> None:
        self._sums: tuple[np.ndarray, ...] | None = None

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
        self._sums = tuple(
            np.add.accumulate(np.concatenate([start[np.newaxis], part]))[-1]
            for start, part in zip(before, terms, strict=True)
        )

    def estimate(self) -> BatchEstimate:
        """Return the average over the observations so far, of which there is one or more."""
        assert self._sums is not None
        mean, variance, seen = self._sums
        return BatchEstimate(mean / np.maximum(seen, 1), variance / np.maximum(seen, 1), seen == 0)


@dataclass(frozen=True)
class MovingStatistics:
    """Moving mean and variance after some number of batches.

    Attributes
    ----------
    rule : MovingRule
        How they are kept.
    mean, variance : ndarray of float64
        One entry for each group.
    batches : int
        Batches folded so far.
    """

    rule: MovingRule
    mean: np.ndarray
    variance: np.ndarray
    batches: int = 0

    @classmethod
    def begin(cls, rule: MovingRule, shape: tuple[int, ...]) -> MovingStatistics:
        """Return the start of the moving statistics: mean 0, variance 1, or not a number yet."""
        if rule.start == "first-batch":
            return cls(rule, np.full(shape, np.nan), np.full(shape, np.nan))
        return cls(rule, np.zeros(shape), np.ones(shape))

    def estimate_of(self, batch: Moments, nonfinite: str = "omit") -> BatchEstimate:
        """Return what the moments of one batch, or of one observation of it, say.

        Raises
        ------
        DataPolicyError
            When an unbiased variance meets one element in a group.
        """
        ddof = 1 if self.rule.variance == "unbiased" else 0
        if ddof and np.any(batch.count == 1):
            what = "an observation with" if self.rule.instances else "a group of"
            remedy = "" if self.rule.instances else "a larger --batch-size, or "
            raise DataPolicyError(
                f"Batch {self.batches + 1} has {what} one element, whose variance with "
                "divisor n - 1 is undefined.",
                f"Use {remedy}--moving-variance biased.",
            )
        mean, variance, empty = batch.mean, batch.variance(ddof), batch.count == 0
        if nonfinite == "propagate":
            # A NaN in one batch stays in an average for good, as in every framework.
            mean = np.where(batch.nonfinite > 0, np.nan, mean)
            variance = np.where(batch.nonfinite > 0, np.nan, variance)
            empty = np.zeros(empty.shape, bool)
        return BatchEstimate(mean, variance, empty)

    def fold(self, batch: Moments, nonfinite: str = "omit") -> MovingStatistics:
        """Return the moving statistics after one more batch, a single group of elements.

        Raises
        ------
        DataPolicyError
            When an unbiased variance meets a batch with one element in a group, or the plain
            average of batches one without a finite value.
        """
        return self.fold_estimate(self.estimate_of(batch, nonfinite), nonfinite)

    def fold_estimate(self, batch: BatchEstimate, nonfinite: str = "omit") -> MovingStatistics:
        """Return the moving statistics after one more batch, by what it says.

        Raises
        ------
        DataPolicyError
            When the plain average of batches meets one without a finite value.
        """
        if self.rule.frozen and not np.any(self._unstarted(nonfinite)):
            return self
        mean, variance = batch.mean, batch.variance
        if self.rule.momentum is None and not self.rule.frozen:
            if np.any(batch.empty):
                raise DataPolicyError(
                    f"Batch {self.batches + 1} has a group without a finite value, which cannot "
                    "be averaged with the other batches.",
                    "Use a larger --batch-size, --momentum M, or the pooled statistics.",
                )
            weight = 1.0 / (self.batches + 1)
            mean = self.mean + (mean - self.mean) * weight if self.batches else mean
            variance = (
                self.variance + (variance - self.variance) * weight if self.batches else variance
            )
        else:
            old = 1.0 if self.rule.frozen or self.rule.momentum is None else self.rule.momentum
            new = 1.0 - old
            first = self._unstarted(nonfinite)
            mean = np.where(first, mean, old * self.mean + new * mean)
            variance = np.where(first, variance, old * self.variance + new * variance)
        # A batch without a finite element in a group says nothing about that group.
        mean = np.where(batch.empty, self.mean, mean)
        variance = np.where(batch.empty, self.variance, variance)
        return replace(self, mean=mean, variance=variance, batches=self.batches + 1)

    def _unstarted(self, nonfinite: str) -> np.ndarray | bool:
        """Return which groups take their first batch as it is."""
        if self.rule.start != "first-batch":
            return False
        if nonfinite == "omit":
            # A group may have no finite value in the first batch, so each one starts by itself.
            return np.isnan(self.mean)
        return self.batches == 0
