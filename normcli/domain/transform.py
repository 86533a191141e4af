"""The two steps that a kernel applies to each element, folded from statistics and affine.

Forward::

    y = ((x - mean) / sqrt(var + eps)) * scale + bias

is ``((x - subtract) * factor) * multiply + add`` with subtract and factor along the kept axes,
multiply and add along the scale axes. Other methods differ in the tables alone::

    minmax    y = (x - minimum) * ((high - low) / (maximum - minimum)) + low
    maxabs    y = x / max(|minimum|, |maximum|)
    robust    y = (x - median) / (upper quantile - lower quantile)
    lp        y = x / max(norm, eps)

with ``low`` added by the affine (`Affine.after`), because it is the same for all groups. The
inverse has the same form with the tables exchanged:
``((y - bias) / scale) * sqrt(var + eps) + mean``.

Two kinds of data ask for more (`WideMoments`). Integers beyond 2**53 lose bits in float64, so that
an integer near the center is subtracted (or, backward, added) as integers are, and what the center
has beside it as a float. Magnitudes whose squares leave float64 are divided by a power of two, and
the tables are those of the quotients: ``y = (x / u - mean / u) / sqrt((var + eps) / u**2)`` with
``u = 2**e``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.conventions import has_unit_constants
from normcli.domain.norm_spec import NormSpec
from normcli.errors import DataPolicyError


@dataclass(frozen=True)
class Normalizer:
    """Center and factor of each group of a region: what statistics contribute.

    Attributes
    ----------
    center, factor : ndarray of float64
        Extents of the kept axes; ``z = (x - center) * factor``.
    divisor : ndarray of float64
        The inverse of factor where factor is not 0; 0 where a constant group is its center.
    rest : ndarray of float64 or None
        What the rounding of `center` took away; None where nothing is known of it.
    exponent : ndarray of int64 or None
        Data are divided by ``2**exponent``, and center, factor and divisor are those of the
        quotients; None where data are taken as they are.
    """

    center: np.ndarray
    factor: np.ndarray
    divisor: np.ndarray
    rest: np.ndarray | None = None
    exponent: np.ndarray | None = None

    def __getitem__(self, index: Any) -> Normalizer:
        """Return a view of some of the groups."""
        tables = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: table[index] for k, table in tables.items() if table is not None}
        )


@dataclass(frozen=True)
class Transform:
    """``out = ((in - subtract) * factor) * multiply + add``; None leaves a step out.

    Attributes
    ----------
    subtract, factor : ndarray of float64 or None
        Along the axes of the first table.
    multiply, add : ndarray of float64 or None
        Along the axes of the second table.
    inverse : bool
        False: the first table runs along the kept axes, the second along the scale axes.
        True: the other way round.
    rest : ndarray of float64 or None
        Along the kept axes: what the rounding of `subtract` took away (of `add`, where inverse).
        It matters for 64-bit integers alone: those that come in, or go out where inverse.
    exponent : ndarray of int64 or None
        Along the kept axes: ``in`` is divided by ``2**exponent`` first; where inverse, ``out`` is
        multiplied by it at last.
    """

    subtract: np.ndarray | None
    factor: np.ndarray | None
    multiply: np.ndarray | None
    add: np.ndarray | None
    inverse: bool = False
    rest: np.ndarray | None = None
    exponent: np.ndarray | None = None


def normalizer(
    spec: NormSpec,
    mean: np.ndarray,
    variance: np.ndarray,
    constant: np.ndarray,
    exponent: np.ndarray | None = None,
) -> Normalizer:
    """Fold statistics into what is subtracted and what is multiplied.

    Parameters
    ----------
    spec : NormSpec
        Method, epsilon and its placement.
    mean, variance : ndarray of float64
        Statistics of each group.
    constant : ndarray of bool
        Groups whose elements are all the same; they become exactly 0 before scale and bias, or
        are divided by 1 where that is the rule of the convention.
    exponent : ndarray of int64, optional
        Mean and variance are those of data divided by ``2**exponent``.

    Returns
    -------
    Normalizer
    """
    center = mean if spec.centered else np.zeros_like(mean)
    if spec.method == "center":
        return Normalizer(center, np.ones_like(mean), np.ones_like(mean))
    power = variance + mean * mean if spec.method == "rms" else variance
    epsilon: float | np.ndarray = spec.epsilon
    if exponent is not None:
        steps = 2 if spec.placement == "inside" else 1
        with np.errstate(under="ignore"):
            epsilon = np.ldexp(epsilon, -steps * exponent)
    divisor = _divisor(power, spec, epsilon)
    if has_unit_constants(spec.convention):
        unit = (divisor == 0) | (constant & (spec.method != "rms"))
        divisor = np.where(unit, 1.0, divisor)
        return Normalizer(center, 1.0 / divisor, divisor)
    # With epsilon 0 a group without spread divides 0 by 0; it becomes 0, then its bias.
    flat = divisor == 0 if spec.method == "rms" else (constant | (divisor == 0))
    divisor = np.where(flat, 0.0, divisor)
    factor = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=~flat)
    # Where nothing is subtracted, the way back from a constant still needs its value.
    center = np.where(flat, mean, center)
    return Normalizer(center, factor, divisor)


def extreme_normalizer(
    spec: NormSpec, mean: np.ndarray, low: np.ndarray, high: np.ndarray, constant: np.ndarray
) -> Normalizer:
    """Fold extremes into what is subtracted and what is multiplied.

    Parameters
    ----------
    spec : NormSpec
        Method ``minmax``, with its range, or ``maxabs``.
    mean : ndarray of float64
        To which constant groups return.
    low, high : ndarray of float64
        Minimum and maximum of each group; NaN makes a group NaN.
    constant : ndarray of bool
        Groups whose elements are all the same. ``minmax`` makes them exactly the lower bound;
        ``maxabs`` makes only groups of zeros 0.

    Returns
    -------
    Normalizer
    """
    if spec.range is not None:
        return spread_normalizer(spec, mean, low, high - low, constant)
    largest = np.maximum(np.abs(low), np.abs(high))
    return spread_normalizer(spec, mean, np.zeros_like(low), largest, np.zeros_like(constant))


def spread_normalizer(
    spec: NormSpec,
    mean: np.ndarray,
    center: np.ndarray,
    spread: np.ndarray,
    flat: np.ndarray,
    unit: np.ndarray | None = None,
) -> Normalizer:
    """Fold what is divided by in place of a deviation.

    Parameters
    ----------
    spec : NormSpec
        Method ``minmax``, with its range, ``maxabs``, ``robust`` or ``lp``, with its epsilon.
    mean : ndarray of float64
        To which flat groups return.
    center, spread : ndarray of float64
        What is subtracted and divided by; NaN makes a group NaN.
    flat : ndarray of bool
        Groups that become exactly 0 before scale and bias, beside those without a spread.
    unit : ndarray of bool, optional
        Groups that are divided by 1, which is the rule of a convention; none of them is flat.
    """
    width = 1.0 if spec.range is None else spec.range[1] - spec.range[0]
    # Only the method lp has an epsilon, below which no norm is.
    spread = np.maximum(spread, spec.epsilon) if spec.epsilon else spread
    flat = flat | (spread == 0)
    if unit is not None:
        spread, flat = np.where(unit, 1.0, spread), flat & ~unit
    divisor = np.where(flat, 0.0, spread / width)
    factor = np.divide(width, spread, out=np.zeros_like(spread), where=~flat)
    return Normalizer(np.where(flat, mean, center), factor, divisor)


def forward(statistics: Normalizer, affine: Affine) -> Transform:
    """Return the transform from data to normalized values."""
    return Transform(
        statistics.center,
        statistics.factor,
        affine.scale,
        affine.bias,
        rest=statistics.rest,
        exponent=statistics.exponent,
    )


def backward(statistics: Normalizer, affine: Affine) -> Transform:
    """Return the transform from normalized values back to data.

    A constant group returns to its mean.

    Raises
    ------
    DataPolicyError
        When a scale is 0, which nothing can undo.
    """
    multiply = None
    if affine.scale is not None:
        zeros = int(np.count_nonzero(affine.scale == 0))
        if zeros:
            raise DataPolicyError(
                f"{zeros} of {affine.scale.size} scales are 0, which cannot be undone.",
                "Drop the scale with --scale none if the data were normalized without it.",
            )
        multiply = 1.0 / affine.scale
    return Transform(
        affine.bias,
        multiply,
        statistics.divisor,
        statistics.center,
        inverse=True,
        rest=statistics.rest,
        exponent=statistics.exponent,
    )


def _divisor(power: np.ndarray, spec: NormSpec, epsilon: float | np.ndarray) -> np.ndarray:
    if spec.placement == "inside":
        return np.sqrt(power + epsilon)
    if spec.placement == "outside":
        return np.sqrt(power) + epsilon
    return np.maximum(np.sqrt(power), epsilon)
