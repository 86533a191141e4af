"""The exact minimum of the loss: normal equations, with bounds by the faces of their box.

In each cell the loss divided by w is a convex quadratic of two variables::

    Szz s^2 - 2 Szt s + n (s mz + b - mt)^2 + Ls s^2 + Lb b^2        Ls = ks / w, Lb = kb / w

with the centred sums Szz and Szt. Its minimum in a box is the free one where that lies inside, and
else the smallest of the minima on the four edges, each of which is a clipped parabola. Clipping
both coordinates of the free minimum would be wrong: the other one has to move along.

What the loss does not determine keeps its start: the scale of a cell whose normalized input is one
value (the bias then takes what is left), and both of a cell without any pair and penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normcli.domain.learning import Objective, Term
from normcli.domain.pair_moments import PairMoments

# Normalized elements this close to each other are one value that was rounded.
FLAT = 4 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Solution:
    """The minimum of each cell.

    Attributes
    ----------
    scale, bias : ndarray of float64
        Values, also of frozen and absent terms.
    undetermined : ndarray of bool
        Cells in which a learned term kept its start, because the loss does not depend on it.
    """

    scale: np.ndarray
    bias: np.ndarray
    undetermined: np.ndarray


@dataclass(frozen=True)
class _Quadratic:
    """The loss of each cell over w."""

    n: np.ndarray
    mean: np.ndarray
    target: np.ndarray
    m2: np.ndarray
    product: np.ndarray
    ridge: float
    bias_ridge: float
    pairs: PairMoments

    def best_bias(self, scale: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the best bias for a scale; `start` where any is as good."""
        rest = self.n * (
            (self.target - scale * self.mean)
            + (self.pairs.target_tail - scale * self.pairs.mean_tail)
        )
        return _ratio(rest, self.n + self.bias_ridge, start)

    def best_scale(self, bias: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the best scale for a bias; `start` where any is as good."""
        top = self.product + self.n * self.mean * ((self.target - bias) + self.pairs.target_tail)
        return _ratio(top, self.m2 + self.n * self.mean**2 + self.ridge, start)

    def free_scale(self, start: np.ndarray) -> np.ndarray:
        """Return the best scale where the bias is free to follow; `start` where any is as good."""
        share = self.n * (self.bias_ridge / np.maximum(self.n + self.bias_ridge, 1e-300))
        top = self.product + share * self.mean * self.target
        return _ratio(top, self.free_curvature(), start)

    def free_curvature(self) -> np.ndarray:
        """Return the second derivative (halved) along the scale where the bias follows."""
        share = self.n * (self.bias_ridge / np.maximum(self.n + self.bias_ridge, 1e-300))
        return self.m2 + self.ridge + share * self.mean**2

    def value(self, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return the quadratic, without its constant."""
        offset = scale * self.mean + (bias - self.target)
        return (
            (self.m2 + self.ridge) * scale**2
            - 2 * self.product * scale
            + self.n * offset**2
            + self.bias_ridge * bias**2
        )


def solve_exact(objective: Objective, pairs: PairMoments, observations: int) -> Solution:
    """Return scale and bias of the smallest loss.

    Parameters
    ----------
    objective : Objective
        What is minimized; L1 penalties and projections are not part of it here.
    pairs : PairMoments
        Sums of each cell.
    observations : int
        Extent of the batch axis behind them.

    Returns
    -------
    Solution
    """
    scale, bias = objective.scale, objective.bias
    weight = objective.data_weight(pairs.whole()[0], observations)
    n = pairs.count.astype(np.float64)
    flat = pairs.m2 <= n * (FLAT * np.abs(pairs.mean)) ** 2
    quadratic = _Quadratic(
        n,
        pairs.mean,
        pairs.target_mean,
        np.where(flat, 0.0, pairs.m2),
        np.where(flat, 0.0, pairs.product),
        objective.l2_weight(scale) / weight if scale.learned else 0.0,
        objective.l2_weight(bias) / weight if bias.learned else 0.0,
        pairs,
    )
    loose_bias = bias.learned & (n + quadratic.bias_ridge == 0)
    if not scale.learned:
        found = bias.clip(quadratic.best_bias(scale.start, bias.start))
        return Solution(scale.start, found, loose_bias)
    if not bias.learned:
        found = scale.clip(quadratic.best_scale(bias.start, scale.start))
        curvature = quadratic.m2 + n * pairs.mean**2 + quadratic.ridge
        return Solution(found, bias.start, curvature == 0)
    s = quadratic.free_scale(scale.clip(scale.start))
    b = quadratic.best_bias(s, bias.clip(bias.start))
    undetermined = (quadratic.free_curvature() == 0) | loose_bias
    if scale.bounded or bias.bounded:
        s, b = _in_box(quadratic, scale, bias, s, b)
    return Solution(s, b, undetermined)


def _in_box(
    quadratic: _Quadratic, scale: Term, bias: Term, s: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the minimum in the box, from the free one."""
    scale_start, bias_start = scale.clip(scale.start), bias.clip(bias.start)
    inside = (s >= scale.low) & (s <= scale.high) & (b >= bias.low) & (b <= bias.high)
    least = np.where(inside, -np.inf, np.inf)
    for bound in (scale.low, scale.high):
        if np.isfinite(bound):
            edge = np.full_like(s, bound)
            other = bias.clip(quadratic.best_bias(edge, bias_start))
            s, b, least = _better(quadratic, edge, other, s, b, least)
    for bound in (bias.low, bias.high):
        if np.isfinite(bound):
            edge = np.full_like(b, bound)
            other = scale.clip(quadratic.best_scale(edge, scale_start))
            s, b, least = _better(quadratic, other, edge, s, b, least)
    return s, b


def _better(
    quadratic: _Quadratic,
    scale: np.ndarray,
    bias: np.ndarray,
    s: np.ndarray,
    b: np.ndarray,
    least: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = quadratic.value(scale, bias)
    better = value < least
    return np.where(better, scale, s), np.where(better, bias, b), np.where(better, value, least)


def _ratio(top: np.ndarray, bottom: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    otherwise = np.broadcast_to(otherwise, np.shape(top))
    return np.divide(top, bottom, out=otherwise.astype(np.float64), where=bottom > 0)
