"""What a run warns of, once its groups are counted."""

from __future__ import annotations

import numpy as np

from normcli.domain.conventions import has_unit_constants
from normcli.domain.losses import Losses
from normcli.domain.norm_spec import NormSpec
from normcli.engine.events import Observer
from normcli.engine.report import Tally


def warn_of(counts: Tally, spec: NormSpec, observer: Observer) -> None:
    """Tell of groups without spread or values, and of an epsilon that flattens groups."""
    if counts.constant and spec.convention is None:
        observer.warn(
            f"{counts.constant} of {counts.groups} groups are constant "
            f"({_listed(counts.constant_names, counts.constant)}); {_fate(spec)}."
        )
    if counts.empty:
        observer.warn(
            f"{counts.empty} of {counts.groups} groups hold no finite value "
            f"({_listed(counts.empty_names, counts.empty)})."
        )
    if counts.flat:
        assert spec.quantiles is not None
        low, high = spec.quantiles
        unit = has_unit_constants(spec.convention)
        observer.warn(
            f"{counts.flat} of {counts.groups} groups vary, but not between their quantiles "
            f"{low:g} and {high:g} ({_listed(counts.flat_names, counts.flat)}); they "
            + ("are divided by 1." if unit else "become their bias."),
            "--quantiles 5,95 spans more of them."
            + ("" if unit else " --convention sklearn divides them by 1."),
        )
    if counts.damped and not (spec.epsilon_given and spec.convention is None):
        observer.warn(
            f"Epsilon {spec.epsilon:g} exceeds 1 % of the variance of {counts.damped} of "
            f"{counts.groups} groups ({_listed(counts.damped_names, counts.damped)}); "
            "it flattens them.",
            "--epsilon 0 is exact.",
        )


def warn_of_losses(losses: Losses, dtype: np.dtype, observer: Observer) -> None:
    """Tell of results that became the nearest value that the type of the output has."""
    if losses:
        observer.warn(
            f"the results held {losses.words(dtype)}; the nearest values were written.",
            "A wider --dtype holds them.",
        )


def _fate(spec: NormSpec) -> str:
    """Return what becomes of constant groups, in words."""
    if spec.method == "maxabs":
        return "they become 1 or -1, and those of zeros 0, before scale and bias"
    if spec.method == "lp":
        return "those of zeros stay 0, others are divided by their norm"
    if spec.method == "rms":
        return "those of zeros become their bias, others are divided by their magnitude"
    if spec.range is not None:
        return f"they become {spec.offset:g}, the lower bound, before scale and bias"
    return "they become their bias"


def _listed(names: tuple[str, ...], total: int) -> str:
    return "; ".join(names) + ("; …" if total > len(names) else "")
