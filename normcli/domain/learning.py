"""What is learned, and what is minimized: the terms, the penalties and the loss.

With z the normalized input, t the target and a cell for each element of the scale axes, learning
minimizes ``w * sum (s z + b - t)^2 + penalty(s) + penalty(b)``. The weight w of the data and the
spelling of the penalty are those of a convention:

=========  ==============================  ====================  ==============
convention data term                       w                     L2 penalty
=========  ==============================  ====================  ==============
sum        sum of squares                  1                     ``l p^2``
keras      mean over elements              1 / elements          ``l p^2``
torch      mean over elements              1 / elements          ``l p^2 / 2``
matlab     half the squares, by observed   1 / (2 observations)  ``l p^2 / 2``
=========  ==============================  ====================  ==============
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from normcli.domain.pair_moments import PairMoments
from normcli.domain.projections import Projection
from normcli.errors import DataPolicyError

L2_CONVENTIONS = ("sum", "keras", "torch", "matlab")


@dataclass(frozen=True)
class Term:
    """How one of scale and bias is learned.

    Attributes
    ----------
    start : ndarray of float64
        Where it begins, with the extents of the scale axes; 1 for an absent scale, 0 for an
        absent bias.
    present : bool
        Whether the term exists; an absent one is not written.
    learned : bool
        Whether it may move; a frozen or absent term keeps its start.
    l1, l2 : float
        Weights of its penalties ``l1 |p|`` and (by convention) ``l2 p^2``.
    low, high : float
        Bounds, which may be infinite.
    projection : Projection or None
        Applied after each update.
    rate_factor : float
        Multiplies the learning rate.
    """

    start: np.ndarray
    present: bool = True
    learned: bool = True
    l1: float = 0.0
    l2: float = 0.0
    low: float = -inf
    high: float = inf
    projection: Projection | None = None
    rate_factor: float = 1.0

    @property
    def bounded(self) -> bool:
        """Whether a bound is finite."""
        return self.low > -inf or self.high < inf

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest values within the bounds."""
        return np.clip(values, self.low, self.high) if self.bounded else values


@dataclass(frozen=True)
class Objective:
    """The loss over a set of pairs.

    Attributes
    ----------
    convention : {"sum", "keras", "torch", "matlab"}
        Whose data term and L2 penalty.
    scale, bias : Term
        What is learned.
    """

    convention: str
    scale: Term
    bias: Term

    def data_weight(self, elements: int, observations: int) -> float:
        """Return w: what the sum of squares over so many pairs is multiplied by."""
        if self.convention == "sum":
            return 1.0
        if self.convention == "matlab":
            return 0.5 / max(observations, 1)
        return 1.0 / max(elements, 1)

    def l2_weight(self, term: Term) -> float:
        """Return k: the L2 penalty of a term is ``k p^2``."""
        return term.l2 / 2 if self.convention in ("torch", "matlab") else term.l2

    def loss(
        self, pairs: PairMoments, observations: int, scale: np.ndarray, bias: np.ndarray
    ) -> float:
        """Return the loss of a scale and a bias.

        Parameters
        ----------
        pairs : PairMoments
            Of each cell.
        observations : int
            Extent of the batch axis behind them.
        scale, bias : ndarray of float64
            Values of each cell.
        """
        weight = self.data_weight(pairs.whole()[0], observations)
        total = weight * float(squared_error(pairs, scale, bias).sum())
        for term, values in ((self.scale, scale), (self.bias, bias)):
            if term.present:
                total += self.l2_weight(term) * float(np.square(values).sum())
                total += term.l1 * float(np.abs(values).sum())
        return total


def squared_error(pairs: PairMoments, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return ``sum (s z + b - t)^2`` of each cell, never negative."""
    with np.errstate(over="ignore", invalid="ignore"):
        spread = scale * scale * pairs.m2 - 2 * scale * pairs.product + pairs.target_m2
        offset = residual_mean(pairs, scale, bias)
        return np.maximum(spread, 0.0) + pairs.count * offset * offset


def residual_mean(pairs: PairMoments, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return ``mean(s z + b - t)`` of each cell; the tails count where the rest cancels."""
    with np.errstate(over="ignore", invalid="ignore"):
        main = (bias - pairs.target_mean) + scale * pairs.mean
        return main + (scale * pairs.mean_tail - pairs.target_tail)


def require_learnable(pairs: PairMoments, nonfinite: str, where: str) -> None:
    """Refuse sums from which nothing can be learned.

    Parameters
    ----------
    pairs : PairMoments
        Of each cell.
    nonfinite : {"omit", "propagate", "error"}
        What NaN and infinities do.
    where : str
        Input and target in words.

    Raises
    ------
    DataPolicyError
        When no pair is finite, when NaN would make a parameter NaN, and when products leave
        float64.
    """
    count, skipped = pairs.whole()
    if nonfinite == "error" and skipped:
        raise DataPolicyError(
            f"{where} hold {skipped} pairs with a NaN or infinite value.",
            "--nonfinite omit leaves these pairs out.",
        )
    if nonfinite == "propagate" and skipped:
        cells = int(np.count_nonzero(pairs.skipped))
        raise DataPolicyError(
            f"{where} hold {skipped} pairs with a NaN or infinite value, which would make the "
            f"scale and bias of {cells} of {pairs.count.size} cells NaN.",
            "--nonfinite omit leaves these pairs out.",
        )
    if not count:
        raise DataPolicyError(
            f"{where} have no pair of two finite values ({skipped} pairs were left out)."
        )
    finite = np.isfinite(pairs.m2) & np.isfinite(pairs.target_m2) & np.isfinite(pairs.product)
    finite &= np.isfinite(pairs.target_mean)
    if not finite.all():
        raise DataPolicyError(
            f"{where} hold values whose products leave float64, in {int((~finite).sum())} of "
            f"{finite.size} cells.",
            "Store the target in larger units, for example divided by a power of two.",
        )
