"""Moving statistics over consecutive batches of observations.

With ``m`` the weight of the old value: ``M <- m M + (1 - m) mean_k`` and
``V <- m V + (1 - m) v_k`` (exponential), or the plain average of the batch statistics
(cumulative). ``v_k`` is the batch variance with divisor n or n - 1. A short last batch has the
weight of a full one, as in PyTorch, Keras, Flax and ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """

    momentum: float | None
    batch_sizes: tuple[int, ...]
    variance: str = "biased"
    start: str = "zeros-ones"


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

    def fold(self, batch: Moments, nonfinite: str = "omit") -> MovingStatistics:
        """Return the moving statistics after one more batch.

        Raises
        ------
        DataPolicyError
            When an unbiased variance meets a batch with one element in a group, or the plain
            average of batches one without a finite value.
        """
        ddof = 1 if self.rule.variance == "unbiased" else 0
        if ddof and np.any(batch.count == 1):
            raise DataPolicyError(
                f"Batch {self.batches + 1} has a group of one element, whose variance with "
                "divisor n - 1 is undefined.",
                "Use a larger --batch-size, or --moving-variance biased.",
            )
        mean, variance = batch.mean, batch.variance(ddof)
        if nonfinite == "propagate":
            # A NaN in one batch stays in an average for good, as in every framework.
            mean = np.where(batch.nonfinite > 0, np.nan, mean)
            variance = np.where(batch.nonfinite > 0, np.nan, variance)
        if self.rule.momentum is None:
            if nonfinite == "omit" and np.any(batch.count == 0):
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
            old, new = self.rule.momentum, 1.0 - self.rule.momentum
            first = self._unstarted(nonfinite)
            mean = np.where(first, mean, old * self.mean + new * mean)
            variance = np.where(first, variance, old * self.variance + new * variance)
        if nonfinite == "omit":
            # A batch without a finite element in a group says nothing about that group.
            mean = np.where(batch.count == 0, self.mean, mean)
            variance = np.where(batch.count == 0, self.variance, variance)
        return replace(self, mean=mean, variance=variance, batches=self.batches + 1)

    def _unstarted(self, nonfinite: str) -> np.ndarray | bool:
        """Return which groups take their first batch as it is."""
        if self.rule.start != "first-batch":
            return False
        if nonfinite == "omit":
            # A group may have no finite value in the first batch, so each one starts by itself.
            return np.isnan(self.mean)
        return self.batches == 0
