"""From float64 to the type of the output, in one rounding."""

from __future__ import annotations

import numpy as np

from normcli.domain.dtypes import is_bfloat16


def round_into(values: np.ndarray, out: np.ndarray) -> None:
    """Store float64 values in `out`, rounded to nearest once.

    Integers are clipped to the range of their type, and NaN becomes 0. `values` may be changed.
    """
    if is_bfloat16(out.dtype):
        out[...] = _round_to_odd(values).astype(out.dtype)
    elif out.dtype.kind in "biu":
        _round_integers(values, out)
    else:
        out[...] = values


def _round_to_odd(values: np.ndarray) -> np.ndarray:
    # ml_dtypes converts by way of float32, which rounds twice. A float32 that was rounded to odd
    # keeps what the second rounding has to know (Boldo and Melquiond, 2008).
    near = np.ascontiguousarray(values, np.float32)
    bits = near.view(np.uint32)
    inexact = (near != values) & ~np.isnan(values)
    bits -= np.abs(near) > np.abs(values)
    bits |= inexact
    return near


def _round_integers(values: np.ndarray, out: np.ndarray) -> None:
    if out.dtype.kind == "b":
        low, high = 0, 1
    else:
        limits = np.iinfo(out.dtype)
        low, high = int(limits.min), int(limits.max)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
    np.rint(values, out=values)
    np.clip(values, low, high, out=values)
    # The limits of 64-bit types are no float64: 2**63 - 1 becomes 2**63, which does not fit.
    above = values >= float(high)
    values[above] = 0.0
    out[...] = values.astype(out.dtype)
    out[above] = high
