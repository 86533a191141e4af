"""Extremes of 64-bit integers, exactly."""

from __future__ import annotations

from math import prod

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.domain.integer_origins import left_of
from normcli.domain.ranged_moments import RangedMoments
from normcli.domain.wide_moments import LARGEST_EXACT
from normcli.kernels.group_rows import row_tiles
from normcli.kernels.pieces import region_shape


def measure_extremes(
    values: np.ndarray, geometry: Geometry, start: tuple[int, ...], plain: ExactMoments
) -> RangedMoments:
    """Return the exact moments of one block, with what the rounding of extremes took away.

    Parameters
    ----------
    values : ndarray of int64 or uint64
        The block, in any memory order.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.
    plain : ExactMoments
        Those of the block.

    Returns
    -------
    RangedMoments
        Of the extents of `plain`.
    """
    if np.all((plain.minimum > -LARGEST_EXACT) & (plain.maximum < LARGEST_EXACT)):
        # Nothing was rounded: most data need no second look. 2**53 + 1 is rounded to 2**53.
        return RangedMoments(plain, np.zeros(plain.shape), np.zeros(plain.shape))
    shape = region_shape(geometry, values.shape, start)
    limits = np.iinfo(values.dtype)
    low = np.full(prod(shape), limits.max, values.dtype)
    high = np.full(prod(shape), limits.min, values.dtype)
    for groups, rows in row_tiles(values, geometry, start):
        low[groups] = np.minimum(low[groups], rows.min(axis=1))
        high[groups] = np.maximum(high[groups], rows.max(axis=1))
    rests = (
        -left_of(rounded, exact.reshape(shape))
        for rounded, exact in ((plain.minimum, low), (plain.maximum, high))
    )
    return RangedMoments(plain, *rests)
