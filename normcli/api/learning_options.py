"""The options of a learning run as values, with the names of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normcli.api.options import NormOptions
from normcli.domain.affine import Affine

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class LearnOptions(NormOptions):
    """What is learned, from where, and how. None means the default.

    `batch_size` is that of the gradient steps.

    Attributes
    ----------
    stats : str, Path or FittedStatistics, optional
        Statistics and all settings of a fit; without them they are measured first.
    mean, variance : str or Path, optional
        Statistics from plain arrays, in place of `stats`.
    estimate : {"pooled", "moving"}, optional
        Which statistics; the moving ones where the fit kept them.
    force : bool
        Take `stats` also where the input has changed since they were taken from it.
    affine : str, Path or Affine, optional
        Scale and bias to begin with.
    scale, bias : str or Path, optional
        One of them each; ``"none"`` drops the term, which is not learned then.
    solver : {"exact", "sgd"}, optional
        The minimum itself (the default), or gradient steps.
    freeze : {"scale", "bias"}, optional
        The term that keeps its start.
    l2, l2_scale, l2_bias : float, optional
        Weight of the L2 penalty of both, or of one; 0 by default.
    scale_l2_factor, bias_l2_factor : float, optional
        Multiply it; 1 by default.
    l2_convention : {"sum", "keras", "torch", "matlab"}, optional
        Whose loss and penalty; ``sum`` for the exact solver, ``keras`` for steps.
    l1_scale, l1_bias : float, optional
        Weight of the L1 penalty (steps only).
    scale_bounds, bias_bounds : str or tuple, optional
        ``"LO,HI"`` or a pair; either side may be empty or None.
    scale_constraint, bias_constraint : str, optional
        ``nonneg``, ``max-norm:M``, ``unit-norm`` or ``min-max-norm:LO,HI,RATE``; only the first
        goes with the exact solver.
    scale_init, bias_init : {"ones", "zeros", "narrow-normal"}, optional
        Where learning begins; the last draws from N(0, 0.01^2).
    seed : int, optional
        Of ``narrow-normal`` and of `shuffle`.
    learning_rate, momentum : float, optional
        Of the steps; 0.01 and 0.
    scale_rate_factor, bias_rate_factor : float, optional
        Multiply the learning rate; 0 freezes.
    epochs : int, optional
        Walks over all batches; 100.
    shuffle : bool
        Take the batches in another order each epoch.
    """

    stats: Any = None
    mean: str | Path | None = None
    variance: str | Path | None = None
    estimate: str | None = None
    force: bool = False
    affine: str | Path | Affine | None = None
    scale: str | Path | None = None
    bias: str | Path | None = None
    solver: str | None = None
    freeze: str | None = None
    l2: float | None = None
    l2_scale: float | None = None
    l2_bias: float | None = None
    scale_l2_factor: float | None = None
    bias_l2_factor: float | None = None
    l2_convention: str | None = None
    l1_scale: float | None = None
    l1_bias: float | None = None
    scale_bounds: str | Bounds | None = None
    bias_bounds: str | Bounds | None = None
    scale_constraint: str | None = None
    bias_constraint: str | None = None
    scale_init: str | None = None
    bias_init: str | None = None
    seed: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    scale_rate_factor: float | None = None
    bias_rate_factor: float | None = None
    epochs: int | None = None
    shuffle: bool = False
