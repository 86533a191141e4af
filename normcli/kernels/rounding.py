"""From float64 to the type of the output, in one rounding, with a count of what it cannot hold."""

from __future__ import annotations

import numpy as np

from normcli.domain.dtypes import is_bfloat16
from normcli.domain.losses import NO_LOSSES, ROUNDING, Losses, limits
from normcli.kernels.pieces import Dense

# Elements whose masks stay in the L2 cache.
_TILE = 1 << 16


def round_into(values: np.ndarray, out: np.ndarray) -> Losses:
    """Store float64 values in `out`, rounded to nearest once, and return what was lost.

    Integers are clipped to the range of their type, and NaN becomes 0; both are counted. What
    overflows a floating-point type is not: see `overflows`. `values` may be changed.
    """
    if is_bfloat16(out.dtype):
        out[...] = _round_to_odd(values).astype(out.dtype)
    elif out.dtype.kind in "biu":
        return _round_integers(values, out)
    else:
        out[...] = values
    return NO_LOSSES


def overflows(values: np.ndarray, result: np.ndarray) -> Losses:
    """Count the finite elements of a block whose results are infinite.

    Two walks over memory, so that they are only taken where a block has non-finite results.

    Parameters
    ----------
    values, result : ndarray
        The block before and after, in the same memory order.
    """
    before, after = Dense.of(values).flat, Dense.of(result).flat
    count = 0
    for i in range(0, after.size, _TILE):
        part = slice(i, i + _TILE)
        count += int(np.count_nonzero(np.isinf(after[part]) & np.isfinite(before[part])))
    return Losses(overflowed=count)


def _round_to_odd(values: np.ndarray) -> np.ndarray:
    # ml_dtypes converts by way of float32, which rounds twice. A float32 that was rounded to odd
    # keeps what the second rounding has to know (Boldo and Melquiond, 2008).
    near = np.ascontiguousarray(values, np.float32)
    bits = near.view(np.uint32)
    inexact = (near != values) & ~np.isnan(values)
    bits -= np.abs(near) > np.abs(values)
    bits |= inexact
    return near


def _round_integers(values: np.ndarray, out: np.ndarray) -> Losses:
    low, high = limits(out.dtype)
    unknown = np.isnan(values)
    nan = int(np.count_nonzero(unknown))
    if nan:
        values[unknown] = 0.0
    np.rint(values, out=values)
    # The largest 64-bit integers are no float64: 2**63 - 1 becomes 2**63, which does not fit.
    beyond = float(high) > high
    above = values >= high if beyond else values > high
    below = values < low
    clipped = 0
    if above.any() or below.any():
        slack = ROUNDING if beyond else 0.0
        clipped = int(np.count_nonzero(values > high + slack * high))
        clipped += int(np.count_nonzero(values < low + slack * low))
        values[above] = 0.0 if beyond else high
        values[below] = low
    out[...] = values.astype(out.dtype)
    if beyond:
        out[above] = high
    return Losses(clipped, nan) if clipped or nan else NO_LOSSES
