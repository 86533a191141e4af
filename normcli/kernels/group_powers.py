"""Sums of powers of magnitudes, exact but for the rounding of each power."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.far_powers import LARGEST_P, FarPowers, band_of, in_band, some_powers
from normcli.domain.geometry import Geometry
from normcli.kernels.group_rows import row_tiles
from normcli.kernels.numpy_sums import row_moments
from normcli.kernels.pieces import region_shape

# Rows of smaller powers are measured again: well above where groups are taken to have lost bits.
_LEAST = 1e-280
# Elements at once.
_PIECE = 1 << 13


def measure_powers(
    values: np.ndarray, geometry: Geometry, start: tuple[int, ...], p: float
) -> tuple[ExactMoments, FarPowers | None]:
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
    powers : ExactMoments
        Of the extents of ``geometry.region(start, stop)``.
    far : FarPowers or None
        Of the same extents: powers that leave float64, where there are some.
    """
    shape = region_shape(geometry, values.shape, start)
    result = ExactMoments.identity((prod(shape),))
    far: FarPowers | None = None
    for groups, rows in row_tiles(values, geometry, start):
        if p == 1:
            powers = _magnitudes(rows)
        else:
            powers = _powers(rows, p)
            for some, sums in _far(rows, powers, p):
                far = far or FarPowers.identity(result.shape)
                far = far.store(groups[some], far[groups[some]].merge(sums))
        result = result.store(groups, result[groups].merge(row_moments(powers)))
    return result.reshape(shape), None if far is None else far.reshape(shape)


def _far(rows: np.ndarray, powers: np.ndarray, p: float) -> Iterator[tuple[np.ndarray, FarPowers]]:
    """Yield which rows hold powers that leave float64, and the sums of some of these.

    Where the largest power is too small, these are all powers of the row; else those beyond it.
    Small powers beside larger ones change nothing.
    """
    most = np.fmax.reduce(powers, axis=1)
    good = (most >= _LEAST) & np.isfinite(most)
    # Mostly every row is so: this costs little beside the powers.
    if p > LARGEST_P or bool(good.all()):
        return
    # In pieces, whose temporaries are small beside those of a tile.
    width = min(rows.shape[1], _PIECE)
    found = np.flatnonzero(~good)
    several = np.array_split(found, -(-len(found) * width // _PIECE))
    for some in several:
        for start in range(0, rows.shape[1], width):
            part = (some, slice(start, start + width))
            size = np.abs(rows[part].astype(np.float64))
            held, sums = _far_rows(size, powers[part], p)
            if sums is not None:
                yield some[held], sums


def _far_rows(
    size: np.ndarray, powers: np.ndarray, p: float
) -> tuple[np.ndarray, FarPowers | None]:
    """Return which rows hold such powers, and the sums of these rows; None where no row does."""
    known = np.isfinite(size) & (size > 0)
    taken = known & np.isinf(powers)
    small = np.where(known, powers, 0.0).max(axis=1) < _LEAST
    taken |= known & small[:, np.newaxis]
    held = taken.any(axis=1)
    if not held.any():
        return held, None
    size, taken = size[held], taken[held]
    mantissa, exponent = some_powers(np.where(taken, size, 1.0), p)
    bands = np.where(taken, band_of(exponent), np.iinfo(np.int64).min)
    band = bands.max(axis=1)
    sums = []
    for lower in (0, 1):
        own = band - lower
        scaled = in_band(mantissa, exponent, own[:, np.newaxis])
        # What is NaN is not counted.
        one = row_moments(np.where(bands == own[:, np.newaxis], scaled, np.nan))
        sums.append(replace(one, nonfinite=np.zeros_like(one.count)))
    return held, FarPowers(band, *sums)


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
