"""Moving statistics over consecutive batches of observations.

With ``m`` the weight of the old value: ``M <- m M + (1 - m) mean_k`` and
``V <- m V + (1 - m) v_k`` (exponential), or the plain average of the batch statistics
(cumulative). ``v_k`` is the batch variance with divisor n or n - 1. A short last batch has the
weight of a full one, as in PyTorch, Keras, Flax and ONNX.

PyTorch's InstanceNorm with ``track_running_stats`` keeps the same for statistics of observations:
``mean_k`` and ``v_k`` are then the plain averages of mean and variance over the observations of
batch k, each with its own divisor.

What float64 does not hold is kept beside the arrays, where there is such data (`wide_moving`).
Everything else has the bits of the formulas above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from normcli.domain.batch_estimate import BatchEstimate, WideEstimate
from normcli.domain.moments import Moments
from normcli.domain.moving_step import Step
from normcli.domain.wide_moving import Beyond, beyond_of, folded, rounded_groups
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
    beyond : Beyond or None
        What float64 leaves out of them; None where it leaves out nothing.
    """

    rule: MovingRule
    mean: np.ndarray
    variance: np.ndarray
    batches: int = 0
    beyond: Beyond | None = None

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
        beyond = beyond_of(batch, variance, ddof)
        if beyond is None:
            return BatchEstimate(mean, variance, empty)
        if nonfinite == "propagate":
            beyond = Beyond.nothing(variance).where(batch.nonfinite > 0, beyond)
        return WideEstimate(mean, variance, empty, beyond, rounded_groups(batch))

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
        first = self._unstarted(nonfinite)
        if self.rule.frozen and not np.any(first):
            return self._with_rests_of(batch)
        if self.rule.momentum is None and not self.rule.frozen:
            if np.any(batch.empty):
                raise DataPolicyError(
                    f"Batch {self.batches + 1} has a group without a finite value, which cannot "
                    "be averaged with the other batches.",
                    "Use a larger --batch-size, --momentum M, or the pooled statistics.",
                )
            step, first = Step.cumulative(self.batches + 1), self.batches == 0
        else:
            held = self.rule.frozen or self.rule.momentum is None
            step = Step.exponential(1.0 if held else float(self.rule.momentum or 0.0))
        mean = np.where(first, batch.mean, step.plain(self.mean, batch.mean))
        variance = np.where(first, batch.variance, step.plain(self.variance, batch.variance))
        # A batch without a finite element in a group says nothing about that group.
        mean = np.where(batch.empty, self.mean, mean)
        variance = np.where(batch.empty, self.variance, variance)
        after = replace(self, mean=mean, variance=variance, batches=self.batches + 1)
        known = self.beyond is not None or batch.beyond is not None
        if not known and _all_finite(mean, variance):
            return after
        mean, variance, beyond = folded(self, batch, batch.rounded, (mean, variance), step, first)
        if beyond is not None:
            own = self.beyond or Beyond.nothing(self.variance)
            beyond = own.where(batch.empty, beyond)
        return replace(
            after,
            mean=np.where(batch.empty, self.mean, mean),
            variance=np.where(batch.empty, self.variance, variance),
            beyond=beyond,
        )

    def _with_rests_of(self, batch: BatchEstimate) -> MovingStatistics:
        """Return the same, which stay as they are; of such integers they are known to be exact."""
        if self.beyond is not None or not batch.rounded.any():
            return self
        return replace(self, beyond=Beyond.nothing(self.variance))

    def _unstarted(self, nonfinite: str) -> np.ndarray | bool:
        """Return which groups take their first batch as it is."""
        if self.rule.start != "first-batch":
            return False
        if nonfinite == "omit":
            # A group may have no finite value in the first batch, so each one starts by itself.
            return np.isnan(self.mean)
        return self.batches == 0


def _all_finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(values).all()) for values in arrays)
