"""From statistics to what a kernel subtracts and multiplies, by whichever method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from normcli.domain.constancy import constant_by_rule
from normcli.domain.conventions import has_unit_constants
from normcli.domain.moments import Moments
from normcli.domain.norm_moments import NormMoments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments
from normcli.domain.statistics import Statistics, pooled_estimate, pooled_extremes
from normcli.domain.transform import (
    Normalizer,
    extreme_normalizer,
    normalizer,
    spread_normalizer,
)
from normcli.domain.usability import require_resolved
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
    if spec.divides_by:
        return _by_spread(moments, spec, dtype)
    mean, variance = pooled_estimate(moments, spec)
    return normalizer(spec, mean, variance, constant_by_rule(moments, spec, dtype))


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
    if not spec.divides_by:
        mean, variance = statistics.estimate(estimate)
        constant = replace(statistics, spec=spec).constant(estimate)
        return normalizer(spec, mean, variance, constant)
    if statistics.moments is None or estimate == "moving":
        raise InputError(
            f"Method {spec.method} divides by {spec.divides_by}, but these statistics hold only a "
            "mean and a variance.",
            f"Fit from the data: normcli fit INPUT --method {spec.method} -o STATS",
        )
    return _by_spread(statistics.moments, spec, statistics.source.dtype)


def _by_spread(moments: Moments, spec: NormSpec, dtype: np.dtype) -> Normalizer:
    """Return what is subtracted and divided by in place of a mean and a deviation."""
    mean, _ = pooled_estimate(moments, spec)
    low, high = pooled_extremes(moments, spec)
    flat = constant_by_rule(moments, spec, dtype)
    unknown = np.isnan(low)
    if isinstance(moments, QuantileMoments):
        center = np.where(unknown, np.nan, moments.center)
        spread = np.where(unknown, np.nan, moments.spread)
        # A group without a spread returns to its median, unless it holds one value: its mean.
        mean, kind = np.where(flat, mean, center), np.dtype(np.float64)
    elif isinstance(moments, NormMoments):
        spread = np.where(unknown, np.nan, moments.norm)
        # Nothing is subtracted: only groups of zeros have nothing to divide by.
        center, flat = np.zeros_like(spread), np.zeros_like(flat)
        kind = dtype if dtype.kind == "f" else np.dtype(np.float64)
    else:
        return extreme_normalizer(spec, mean, low, high, flat)
    if not has_unit_constants(spec.convention):
        return spread_normalizer(spec, mean, center, spread, flat)
    # scikit-learn divides by 1 what is below ten units of the type that it computes in.
    unit = spread < 10 * np.finfo(kind).eps
    return spread_normalizer(spec, mean, center, spread, np.zeros_like(flat), unit)
