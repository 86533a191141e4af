"""Which groups hold one value, and so have no deviation to divide by."""

from __future__ import annotations

import numpy as np

from normcli.domain.conventions import has_unit_constants
from normcli.domain.dtypes import spacing
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec

# Two elements this close are one value that was rounded twice.
CONSTANT_ULPS = 4


def constant_by_rule(moments: Moments, spec: NormSpec, dtype: np.dtype) -> np.ndarray:
    """Return which groups are taken for constant by the convention of `spec`, or by our own rule.

    scikit-learn compares the variance with the error bound of its own summation: v is taken for 0
    where v <= n u v + (n mean u)**2, with the unit u = 2**-52. Other conventions have no rule.
    """
    if spec.convention is None:
        return constant_groups(moments, dtype)
    if not has_unit_constants(spec.convention):
        return np.zeros(moments.shape, bool)
    count, variance = moments.count.astype(np.float64), moments.variance()
    unit = float(np.finfo(np.float64).eps)
    with np.errstate(invalid="ignore", over="ignore"):
        bound = count * unit * variance + (count * moments.mean * unit) ** 2
        return np.asarray(variance <= bound)


def constant_groups(moments: Moments, dtype: np.dtype) -> np.ndarray:
    """Return which groups hold one value, up to 4 units in the last place of `dtype`."""
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    if dtype.kind in "biu":
        # Extremes beyond 2**53 are rounded; the sum of squared deviations is not.
        return seen & (low == high) & (moments.m2 == 0)
    with np.errstate(over="ignore"):
        spread = high - low
    # Four units of the coarsest type (bfloat16) are 1/32, those of float16 near 0 are 2.4e-7.
    # Mostly no group is so close, and units need not be looked up (30 us for 4096 groups).
    close = seen & (spread <= np.maximum(magnitude / 16, 1e-6))
    if not np.any(close):
        return close
    return close & (spread <= CONSTANT_ULPS * spacing(dtype, magnitude))
