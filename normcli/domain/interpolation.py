"""What lies between two elements: quantiles that fall on none."""

from __future__ import annotations

import numpy as np

from normcli.domain.error_free import two_sum
from normcli.domain.integer_origins import difference, left_of

# Integers up to this are float64 numbers.
_EXACT = 1 << 53


def between(below: np.ndarray, above: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return what is `share` of the way between two elements, to the bits of ``numpy.quantile``."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = above - below
        found = np.where(share >= 0.5, above - step * (1 - share), below + step * share)
        if np.any(np.isinf(step)):
            # Of opposite signs and the largest magnitudes; halves of these are exact.
            found = np.where(np.isinf(step), 2 * between(below / 2, above / 2, share), found)
    return np.asarray(np.where(share == 0, below, found))


def between_integers(
    below: np.ndarray, above: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is `share` of the way between two integers, as the sum of two float64 numbers.

    Parameters
    ----------
    below, above : ndarray of int64 or uint64
        Of one type, the lower one first.
    share : ndarray of float64
        From 0 to 1.

    Returns
    -------
    value, rest : ndarray of float64
        Within 2**53 the bits of `between`, without a rest; else right to 2**-53 of the difference.
    """
    below, above = np.broadcast_arrays(below, above)
    plain = between(below.astype(np.float64), above.astype(np.float64), share)
    small = (above <= _EXACT) & (below >= (0 if below.dtype.kind == "u" else -_EXACT))
    if small.all():
        return plain, np.zeros_like(plain)
    step, near = difference(above, below), share >= 0.5
    origin = np.where(near, above, below)
    delta = np.where(near, -step * (1 - share), step * share)
    value = origin.astype(np.float64)
    delta, lost = two_sum(delta, -left_of(value, origin))
    value, rest = two_sum(value, delta)
    return np.where(small, plain, value), np.where(small, 0.0, rest + lost)
