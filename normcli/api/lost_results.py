"""Results that would tell nothing of the data, foreseen from statistics before any is written."""

from __future__ import annotations

import numpy as np

from normcli.api.options import ApplyOptions
from normcli.domain.affine import Affine
from normcli.domain.constancy import constant_groups
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import Statistics
from normcli.domain.transform import Normalizer
from normcli.domain.vanishing import largest_results, smallest_result, vanishing_groups
from normcli.engine.events import Observer
from normcli.engine.report import damped_groups, group_names
from normcli.errors import DataPolicyError


def refuse_damped(spec: NormSpec, options: ApplyOptions, statistics: Statistics) -> None:
    """Refuse an epsilon that nobody asked for, where it would flatten a dataset.

    Raises
    ------
    DataPolicyError
        When it exceeds 1 % of a variance.
    """
    if spec.epsilon_given or not spec.per_dataset or options.inverse:
        return
    variance = statistics.estimate(options.estimate)[1]
    flat = np.zeros(variance.shape, bool)
    if statistics.moments is not None:
        flat = constant_groups(statistics.moments, statistics.source.dtype)
    damped = damped_groups(spec, variance, flat)
    if damped.any():
        smallest = float(variance[damped].min())
        raise DataPolicyError(
            f"The default epsilon {spec.epsilon:g} exceeds 1 % of the variance of "
            f"{int(damped.sum())} of {damped.size} groups (the smallest is {smallest:.3g}); "
            "it would flatten them.",
            "--epsilon 0 is exact; --epsilon E takes the responsibility for E.",
        )


def refuse_vanishing(
    spec: NormSpec,
    options: ApplyOptions,
    statistics: Statistics,
    whole: Normalizer,
    affine: Affine,
    output: np.dtype,
    observer: Observer,
) -> None:
    """Refuse an output whose type resolves no result of a group, or warn of it.

    Parameters
    ----------
    spec : NormSpec
        Names the axes.
    options : ApplyOptions
        Direction, and what becomes of such results.
    statistics : Statistics
        With the moments of the groups; without them nothing is known.
    whole : Normalizer
        What is made of the statistics.
    affine : Affine
        Scale and bias, with what the range of a method adds.
    output : numpy.dtype
        Type of the output.
    observer : Observer
        Is told of what is not refused.

    Raises
    ------
    DataPolicyError
        When there are such groups, and ``--overflow saturate`` was not given.
    """
    moments = statistics.moments
    if moments is None:
        return
    largest = largest_results(moments, whole, affine, options.inverse)
    dtype = statistics.source.dtype
    lost = vanishing_groups(moments, largest, dtype, output)
    if not options.inverse:
        # What an epsilon does is told, or refused, by itself.
        variance = moments.variance(spec.ddof)
        lost &= ~damped_groups(spec, variance, constant_groups(moments, dtype))
    if not lost.any():
        return
    names = "; ".join(group_names(spec, lost, (0,) * lost.ndim))
    told = (
        f"{output} resolves no result of {int(lost.sum())} of {lost.size} groups ({names}): "
        f"they are at most {float(largest[lost].max()):.3g}, and it resolves "
        f"{smallest_result(output):.3g}."
    )
    if options.overflow == "saturate":
        observer.warn(told, "A wider --dtype holds them.")
        return
    raise DataPolicyError(
        told, "A wider --dtype holds them; --overflow saturate writes the nearest values."
    )
