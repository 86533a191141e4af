"""Sums of powers of magnitudes, exact but for the rounding of each power."""

from __future__ import annotations

from math import prod

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.kernels.group_rows import row_tiles
from normcli.kernels.numpy_sums import row_moments
from normcli.kernels.pieces import region_shape


def measure_powers(
    values: np.ndarray, geometry: Geometry, start: tuple[int, ...], p: float
) -> ExactMoments:
    """Return the exact moments of ``|x|**p`` over the groups of one block.

    Parameters
    ----------
    values : ndarray
        The block, in any memory order and any real type of native byte order.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.
    p : float
        1 or more. For 1 the magnitudes are exact; other powers are rounded to float64, and count
        as not finite where they leave it.

    Returns
    -------
    ExactMoments
        Of the extents of ``geometry.region(start, stop)``.
    """
    shape = region_shape(geometry, values.shape, start)
    result = ExactMoments.identity((prod(shape),))
    for groups, rows in row_tiles(values, geometry, start):
        powers = _magnitudes(rows) if p == 1 else _powers(rows, p)
        result = result.store(groups, result[groups].merge(row_moments(powers)))
    return result.reshape(shape)


def _powers(rows: np.ndarray, p: float) -> np.ndarray:
    wide = rows.astype(np.float64)
    np.abs(wide, out=wide)
    with np.errstate(over="ignore", under="ignore"):
        return np.power(wide, p, out=wide)


def _magnitudes(rows: np.ndarray) -> np.ndarray:
    if rows.dtype.kind != "i":
        return rows if rows.dtype.kind in "bu" else np.abs(rows)
    # The magnitude of the least integer has no place in its own type, but in the unsigned one.
    return np.abs(rows).view(rows.dtype.str.replace("i", "u"))
