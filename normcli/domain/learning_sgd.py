"""Stochastic gradient descent on the sums of batches.

The gradient of the squared error over a batch is a function of the sums over that batch::

    dE/ds = 2 w (Szz s - Szt + n mz r)      dE/db = 2 w n r      r = mean(s z + b - t)

so the array is read once, and every epoch works on sums. An update is that of PyTorch, Keras and
MATLAB (whose velocity is ``-rate * v``)::

    g = dE/dp + dPenalty/dp        v <- momentum v + g        p <- project(p - rate factor v)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from normcli.domain.learning import Objective, Term, residual_mean
from normcli.domain.pair_moments import PairMoments
from normcli.errors import DataPolicyError


@dataclass(frozen=True)
class Descent:
    """How the steps are made.

    Attributes
    ----------
    rate : float
        Learning rate.
    momentum : float
        Weight of the old velocity, from 0 to below 1.
    epochs : int
        Walks over all batches.
    shuffle : int or None
        Seed of the order of the batches in each epoch; None keeps their order.
    """

    rate: float
    momentum: float = 0.0
    epochs: int = 1
    shuffle: int | None = None


@dataclass(frozen=True)
class Descended:
    """Where the steps led.

    Attributes
    ----------
    scale, bias : ndarray of float64
        Values, also of frozen and absent terms.
    losses : tuple of float
        Loss over all data at the start and after each epoch.
    """

    scale: np.ndarray
    bias: np.ndarray
    losses: tuple[float, ...]


def descend(
    objective: Objective,
    batches: PairMoments,
    observations: tuple[int, ...],
    how: Descent,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Descended:
    """Return scale and bias after all epochs.

    Parameters
    ----------
    objective : Objective
        What descends.
    batches : PairMoments
        Sums of each cell in each batch; the first axis counts batches.
    observations : tuple of int
        Observations of each batch.
    how : Descent
        The steps.
    told : callable
        Hears of each epoch and the loss after it; epoch 0 is the start.

    Raises
    ------
    DataPolicyError
        When the values leave float64.
    """
    whole, seen = batches.fold(0), sum(observations)
    weights = [objective.data_weight(batches[k].whole()[0], n) for k, n in enumerate(observations)]
    parts = [batches[k] for k in range(len(observations))]
    order = np.arange(len(parts))
    random = None if how.shuffle is None else np.random.default_rng(how.shuffle)
    scale, bias = _Walker(objective, objective.scale, how), _Walker(objective, objective.bias, how)
    losses = [objective.loss(whole, seen, scale.value, bias.value)]
    told(0, losses[0])
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(1, how.epochs + 1):
            if random is not None:
                random.shuffle(order)
            for k in order:
                part, double = parts[k], 2 * weights[k]
                pull = double * part.count * residual_mean(part, scale.value, bias.value)
                slope = double * (part.m2 * scale.value - part.product) + pull * part.mean
                scale.step(slope)
                bias.step(pull)
            losses.append(objective.loss(whole, seen, scale.value, bias.value))
            if not np.isfinite(losses[-1]):
                raise DataPolicyError(
                    f"The descent left float64 in epoch {epoch} of {how.epochs}: the loss went "
                    f"from {losses[0]:.3g} to {losses[-1]:.3g}.",
                    f"Below --learning-rate {stable_rate(objective, parts, weights, how):.2g} "
                    "every batch's own step converges.",
                )
            told(epoch, losses[-1])
    return Descended(scale.value, bias.value, tuple(losses))


def stable_rate(
    objective: Objective, parts: list[PairMoments], weights: list[float], how: Descent
) -> float:
    """Return the learning rate below which gradient steps on any one batch converge.

    It is ``2 (1 + momentum) / L`` with L the largest eigenvalue of the Hessian.
    """
    factors = [t.rate_factor if t.learned else 0.0 for t in (objective.scale, objective.bias)]
    ridges = [2 * objective.l2_weight(t) for t in (objective.scale, objective.bias)]
    largest = 0.0
    for part, weight in zip(parts, weights, strict=True):
        a = 2 * weight * (part.m2 + part.count * part.mean**2) + ridges[0]
        d = 2 * weight * part.count + ridges[1]
        c = 2 * weight * part.count * part.mean
        a, d, c = a * factors[0], d * factors[1], c * np.sqrt(factors[0] * factors[1])
        eigenvalue = (a + d) / 2 + np.sqrt(((a - d) / 2) ** 2 + c * c)
        largest = max(largest, float(eigenvalue.max()))
    return 2 * (1 + how.momentum) / largest if largest else float("inf")


class _Walker:
    """One parameter on its way."""

    def __init__(self, objective: Objective, term: Term, how: Descent) -> None:
        self.value = term.start
        self._term = term
        self._l2 = 2 * objective.l2_weight(term)
        self._rate = how.rate * term.rate_factor
        self._momentum = how.momentum
        self._velocity: np.ndarray | None = None

    def step(self, gradient: np.ndarray) -> None:
        """Move against the gradient of the data term and the penalties."""
        term = self._term
        if not term.learned:
            return
        if self._l2:
            gradient = gradient + self._l2 * self.value
        if term.l1:
            gradient = gradient + term.l1 * np.sign(self.value)
        if self._momentum and self._velocity is not None:
            gradient = self._momentum * self._velocity + gradient
        self._velocity = gradient
        self.value = self.value - self._rate * gradient
        if term.projection is not None:
            self.value = term.projection(self.value)
        elif term.bounded:
            self.value = np.clip(self.value, term.low, term.high)
