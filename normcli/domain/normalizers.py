"""From statistics to what a kernel subtracts and multiplies, by whichever method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import (
    Statistics,
    constant_by_rule,
    pooled_estimate,
    pooled_extremes,
    require_resolved,
)
from normcli.domain.transform import Normalizer, extreme_normalizer, normalizer
from normcli.errors import InputError


def normalizer_of(moments: Moments, spec: NormSpec, dtype: np.dtype) -> Normalizer:
    """Return what measured moments contribute to a normalization.

    Parameters
    ----------
    moments : Moments
        Of the groups of one region.
    spec : NormSpec
        The formula. Under a convention constant groups follow that system's rule.
    dtype : numpy.dtype
        Type of the data, which decides what is constant.

    Raises
    ------
    DataPolicyError
        For integers that float64 cannot tell apart.
    """
    require_resolved(moments, dtype, "The input")
    mean, variance = pooled_estimate(moments, spec)
    flat = constant_by_rule(moments, spec, dtype)
    if spec.by_extremes:
        return extreme_normalizer(spec, mean, *pooled_extremes(moments, spec), flat)
    return normalizer(spec, mean, variance, flat)


def fitted_normalizer(
    statistics: Statistics, spec: NormSpec, estimate: str | None = None
) -> Normalizer:
    """Return what fitted or supplied statistics contribute to a normalization.

    Parameters
    ----------
    statistics : Statistics
        Of all groups.
    spec : NormSpec
        The formula: theirs, but for what an apply may change.
    estimate : {"pooled", "moving"}, optional
        None takes the moving ones where the fit kept them.

    Raises
    ------
    InputError
        When the estimate, or the extremes that the method divides by, are not there.
    """
    mean, variance = statistics.estimate(estimate)
    constant = replace(statistics, spec=spec).constant(estimate)
    if not spec.by_extremes:
        return normalizer(spec, mean, variance, constant)
    if statistics.moments is None or estimate == "moving":
        raise InputError(
            f"Method {spec.method} divides by extremes, but these statistics hold only a mean "
            "and a variance.",
            f"Fit from the data: normcli fit INPUT --method {spec.method} -o STATS",
        )
    extremes = pooled_extremes(statistics.moments, spec)
    return extreme_normalizer(spec, mean, *extremes, constant)
