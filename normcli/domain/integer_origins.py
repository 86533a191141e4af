"""64-bit integers less an origin, exactly: what float64 is given of those beyond 2**53."""

from __future__ import annotations

import numpy as np

from normcli.domain.losses import ROUNDING, Losses

_MASK = 0xFFFFFFFF
# The largest float64 below 2**64.
_MOST = 2.0**64 - 2.0**11


def has_origins(dtype: np.dtype) -> bool:
    """Whether elements of a type can be beyond 2**53 and yet exact."""
    return dtype.kind in "iu" and dtype.itemsize == 8


def origins(center: np.ndarray, rest: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the integers nearest to ``center + rest``, and what is left of it.

    Parameters
    ----------
    center, rest : ndarray of float64
        A number as the sum of two; NaN has the origin 0, and is left whole.
    dtype : numpy.dtype
        int64 or uint64; beyond its limits the origin is the limit.

    Returns
    -------
    origin : ndarray of `dtype`
    left : ndarray of float64
        At most 1/2, where the origin is no limit.
    """
    dtype = dtype.newbyteorder("=")
    origin = added(np.zeros(center.shape, dtype), center)
    origin = added(origin, left_of(center, origin) + rest)
    return origin, np.asarray(left_of(center, origin) + rest)


def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 or uint64 as the sum of two float64 numbers: a multiple of 2**32, and the rest.

    The rest is never negative.
    """
    low = (values & values.dtype.type(_MASK)).astype(np.float64)
    return np.ldexp((values >> values.dtype.type(32)).astype(np.float64), 32), low


def left_of(center: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return ``center - origin``, which is exact where `center` is near the integers `origin`."""
    high, low = halves(origin)
    return np.asarray((center - high) - low)


def difference(values: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return ``values - origin`` in float64, rounded once.

    Parameters
    ----------
    values, origin : ndarray of int64 or uint64
        Of one type; differences have up to 65 bits.
    """
    own, other = values.view(np.uint64), np.asarray(origin).view(np.uint64)
    # Modulo 2**64 the difference of the larger and the smaller is right.
    above = (own - other).astype(np.float64)
    below = (other - own).astype(np.float64)
    return np.asarray(np.where(values >= origin, above, -below))


def added(origin: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Return ``origin + delta`` as `added_with_losses` does, without a count."""
    return added_with_losses(origin, delta)[0]


def added_with_losses(origin: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, Losses]:
    """Return ``origin + delta`` rounded to an integer, and clipped to the limits of the type.

    Parameters
    ----------
    origin : ndarray of int64 or uint64
        Integers.
    delta : ndarray of float64
        Numbers; NaN gives 0.

    Returns
    -------
    result : ndarray
        Of the type of `origin`.
    losses : Losses
        Results that were clipped, by more than roundings explain, and NaN.
    """
    unknown = np.isnan(delta)
    whole = np.rint(np.where(unknown, 0.0, delta))
    inside = np.clip(whole, -_MOST, _MOST)
    # A delta has up to 65 bits; its halves are int64, and both move in one direction.
    first = np.floor(inside / 2)
    limits = np.iinfo(origin.dtype)
    result = np.broadcast_to(origin, whole.shape)
    for half in (first, inside - first):
        step = half.astype(np.int64)
        moved = result + step.view(origin.dtype)
        over = (step > 0) & (moved < result)
        under = (step < 0) & (moved > result)
        result = np.where(over, limits.max, np.where(under, limits.min, moved))
        result = result.astype(origin.dtype, copy=False)
    result = np.where(whole > _MOST, limits.max, np.where(whole < -_MOST, limits.min, result))
    result = np.where(unknown, 0, result).astype(origin.dtype, copy=False)
    near = origin.astype(np.float64)
    slack = ROUNDING * (np.abs(near) + np.minimum(np.abs(whole), 2.0**65))
    clipped = np.count_nonzero(near + whole > limits.max + slack)
    clipped += np.count_nonzero(near + whole < limits.min - slack)
    return result, Losses(int(clipped), int(np.count_nonzero(unknown)))
