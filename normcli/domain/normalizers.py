"""From statistics to what a kernel subtracts and multiplies, by whichever method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from normcli.domain.constancy import constant_by_rule
from normcli.domain.conventions import has_unit_constants
from normcli.domain.moment_kinds import plain
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingStatistics
from normcli.domain.norm_moments import NormMoments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments, WideQuantileMoments
from normcli.domain.statistics import Statistics, pooled_estimate, pooled_extremes
from normcli.domain.transform import (
    Normalizer,
    extreme_normalizer,
    normalizer,
    spread_normalizer,
)
from normcli.domain.usability import require_resolved
from normcli.domain.wide_moments import WideMoments
from normcli.domain.wide_moving import Beyond
from normcli.errors import InputError

# Spreads within this and its inverse have inverses of 53 bits, with room for scale and bias.
_LEAST_SPREAD = 2.0**-900


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
    require_resolved(moments, dtype, "The input", spec)
    return _of_moments(moments, spec, dtype)


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
    moving = statistics.moving is not None and estimate != "pooled"
    if isinstance(statistics.moments, WideMoments) and not moving:
        return _of_moments(statistics.moments, spec, statistics.source.dtype)
    if moving and statistics.moving is not None and statistics.moving.beyond is not None:
        return _of_moving(statistics.moving, statistics.moving.beyond, spec)
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


def require_told_apart(
    statistics: Statistics, spec: NormSpec, estimate: str | None, dtype: np.dtype, where: str
) -> None:
    """Refuse to normalize integers by fitted statistics that float64 cannot tell them apart by.

    Parameters
    ----------
    statistics, spec, estimate
        As of `fitted_normalizer`.
    dtype : numpy.dtype
        Type of what is normalized.
    where : str
        Its name, for messages.

    Raises
    ------
    DataPolicyError
        When these are such.
    """
    if statistics.moments is not None:
        moments = statistics.moments
        if statistics.moving is not None and estimate != "pooled":
            if statistics.moving.beyond is not None:
                return
            # Earlier versions did not keep what the rounding of a moving mean took away.
            moments = plain(moments)
        require_resolved(moments, dtype, where, spec)


def _of_moments(moments: Moments, spec: NormSpec, dtype: np.dtype) -> Normalizer:
    if isinstance(moments, WideMoments) and moments.scaled and spec.method != "center":
        return _in_units(moments, spec, dtype)
    if spec.method == "minmax" and isinstance(moments, WideMoments):
        return _between_integers(moments, spec, dtype)
    if spec.divides_by:
        return _by_spread(moments, spec, dtype)
    mean, variance = pooled_estimate(moments, spec)
    found = normalizer(spec, mean, variance, constant_by_rule(moments, spec, dtype))
    if isinstance(moments, WideMoments):
        # Where nothing is subtracted, only what returns to its mean has a center.
        rest = moments.mean_rest
        flat = found.divisor == 0
        return replace(found, rest=rest if spec.centered else np.where(flat, rest, 0.0))
    return found


def _between_integers(moments: WideMoments, spec: NormSpec, dtype: np.dtype) -> Normalizer:
    """Return what is subtracted and divided by of extremes beyond 2**53, to the last unit."""
    mean, _ = pooled_estimate(moments, spec)
    low, high = pooled_extremes(moments, spec)
    below, above = np.nan_to_num(moments.minimum_rest), np.nan_to_num(moments.maximum_rest)
    flat = constant_by_rule(moments, spec, dtype)
    # Of a spread below 2**53 both differences are exact.
    found = spread_normalizer(spec, mean, low, (high - low) + (above - below), flat)
    return replace(found, rest=np.where(found.divisor == 0, moments.mean_rest, below))


def _in_units(moments: WideMoments, spec: NormSpec, dtype: np.dtype) -> Normalizer:
    """Return what groups contribute, some of them divided by a power of two."""
    units = moments.units()
    # Units in the last place are those of the elements; other rules compare powers with powers.
    constant = constant_by_rule(moments if spec.convention is None else units, spec, dtype)
    exponent = moments.m2_exponent
    if has_unit_constants(spec.convention):
        # They are divided by 1, which is no number of their units.
        exponent = np.where(constant, 0, exponent)
    exponent = _above_epsilon(exponent, spec)
    turn = moments.m2_exponent - exponent
    with np.errstate(over="ignore", under="ignore"):
        units = Moments(
            units.count,
            np.where(exponent == 0, moments.mean, np.ldexp(units.mean, turn)),
            np.ldexp(units.m2, 2 * turn),
            np.ldexp(moments.minimum, -exponent),
            np.ldexp(moments.maximum, -exponent),
            units.nonfinite,
        )
    if spec.divides_by:
        found = _by_spread(units, spec, dtype, constant)
    else:
        found = normalizer(spec, *pooled_estimate(units, spec), constant, exponent)
    return replace(found, exponent=exponent)


def _of_moving(moving: MovingStatistics, beyond: Beyond, spec: NormSpec) -> Normalizer:
    """Return what moving statistics contribute, with what float64 leaves out of them."""
    constant = np.zeros(moving.mean.shape, bool)
    fits = beyond.exponent == 0
    center, variance, exponent = moving.mean, moving.variance, None
    if beyond.scaled and spec.method != "center":
        exponent = _above_epsilon(beyond.exponent, spec)
        turn = beyond.exponent - exponent
        with np.errstate(over="ignore", under="ignore"):
            units = np.ldexp(center, -beyond.exponent) + beyond.mean_rest
            center = np.where(exponent == 0, center, np.ldexp(units, turn))
            scaled = np.ldexp(beyond.variance_scaled, 2 * turn)
            variance = np.where(fits, variance, scaled)
    found = normalizer(spec, center, variance, constant, exponent)
    rest = np.where(fits, beyond.mean_rest, 0.0)
    if not spec.centered:
        # Only what returns to its mean has a center.
        rest = np.where(found.divisor == 0, rest, 0.0)
    return replace(found, rest=rest, exponent=exponent)


def _above_epsilon(exponent: np.ndarray, spec: NormSpec) -> np.ndarray:
    """Return units in which epsilon, too, fits float64."""
    if not spec.epsilon:
        return exponent
    # An epsilon far above the variance would be infinite in units of the elements.
    size = np.sqrt(spec.epsilon) if spec.placement == "inside" else spec.epsilon
    least = int(np.frexp(size)[1])
    return np.where(exponent < 0, np.maximum(exponent, min(least, 0)), exponent)


def _by_spread(
    moments: Moments, spec: NormSpec, dtype: np.dtype, flat: np.ndarray | None = None
) -> Normalizer:
    """Return what is subtracted and divided by in place of a mean and a deviation."""
    mean, _ = pooled_estimate(moments, spec)
    low, high = pooled_extremes(moments, spec)
    flat = constant_by_rule(moments, spec, dtype) if flat is None else flat
    if isinstance(moments, NormMoments | QuantileMoments):
        return _by_scaled_spread(moments, spec, dtype, flat, np.isnan(low))
    return extreme_normalizer(spec, mean, low, high, flat)


def _by_scaled_spread(
    moments: NormMoments | QuantileMoments,
    spec: NormSpec,
    dtype: np.dtype,
    flat: np.ndarray,
    unknown: np.ndarray,
) -> Normalizer:
    """Return what norms and quantiles contribute, in units where these are near the ends."""
    mean = np.where(unknown, np.nan, moments.mean)
    rest = unit = None
    if isinstance(moments, QuantileMoments):
        center = np.where(unknown, np.nan, moments.center)
        ends = moments.lower, moments.upper
        size = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
        spread = np.where(unknown, np.nan, moments.spread)
        # A group without a spread returns to its median, unless it holds one value: its mean.
        # That of integers is their median, to the last unit.
        if isinstance(moments, WideQuantileMoments):
            rest, mean = np.nan_to_num(moments.center_rest), center
        mean, kind = np.where(flat, mean, center), np.dtype(np.float64)
    else:
        # Only norms have an epsilon, below which none is.
        spread = np.where(unknown, np.nan, np.maximum(moments.norm, spec.epsilon))
        ends = np.zeros_like(spread), spread
        size = spread
        # Nothing is subtracted: only groups of zeros have nothing to divide by.
        center, flat = np.zeros_like(spread), np.zeros_like(flat)
        kind = dtype if dtype.kind == "f" else np.dtype(np.float64)
    spec = replace(spec, epsilon=0.0)
    if has_unit_constants(spec.convention):
        # scikit-learn divides by 1 what is below ten units of the type that it computes in.
        unit, flat = spread < 10 * np.finfo(kind).eps, np.zeros_like(flat)
    exponent = _unit_of(spread, size) * (1 if unit is None else ~unit)
    if not np.any(exponent):
        return replace(spread_normalizer(spec, mean, center, spread, flat, unit), rest=rest)
    with np.errstate(under="ignore"):
        low, high, center, mean = (np.ldexp(v, -exponent) for v in (*ends, center, mean))
    spread = np.where(exponent == 0, spread, high - low)
    return replace(spread_normalizer(spec, mean, center, spread, flat, unit), exponent=exponent)


def _unit_of(spread: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the power of two that data are divided by; 0 where a spread has an inverse."""
    seen = spread > 0
    far = seen & ((spread < _LEAST_SPREAD) | (spread > 1 / _LEAST_SPREAD))
    return np.where(far, np.frexp(np.where(far, size, 0.0))[1], 0).astype(np.int64)
