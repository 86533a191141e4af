"""Quantiles of the groups of one block: exact where it holds them whole, else by sketches."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from normcli.domain.dtypes import is_bfloat16
from normcli.domain.geometry import Geometry
from normcli.domain.quantile_sketches import QuantileSketches, between, new_sketch
from normcli.kernels.group_rows import row_tiles
from normcli.kernels.pieces import region_shape


def whole_quantiles(
    values: np.ndarray, geometry: Geometry, start: tuple[int, ...], levels: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower quantile, median and upper quantile of the groups of a block that holds them.

    Parameters
    ----------
    values : ndarray
        The block, in any memory order and any real type of native byte order.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.
    levels : tuple of float
        The lower and the upper quantile, from 0 to 1.

    Returns
    -------
    tuple of ndarray of float64
        Of the extents of ``geometry.region(start, stop)``, with the bits of
        ``numpy.nanquantile`` over the finite elements in float64; NaN without any.
    """
    shape = region_shape(geometry, values.shape, start)
    found = np.full((3, prod(shape)), np.nan)
    points = np.array([levels[0], 0.5, levels[1]])
    for groups, rows in row_tiles(values, geometry, start, whole=True):
        found[:, groups] = _of_rows(rows, points)
    lower, center, upper = found.reshape(3, *shape)
    return lower, center, upper


def _of_rows(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    if is_bfloat16(rows.dtype):
        rows = rows.astype(np.float32)
    finite = np.isfinite(rows) if rows.dtype.kind == "f" else None
    if finite is None or finite.all():
        place = (rows.shape[1] - 1) * points
        low, high = np.floor(place).astype(np.intp), np.ceil(place).astype(np.intp)
        rows = np.partition(rows, sorted({*low.tolist(), *high.tolist()}), axis=1)
        below, above = rows[:, low].astype(np.float64), rows[:, high].astype(np.float64)
        return between(below, above, place - low).T + 0.0
    # NaN sorts last, behind the finite elements.
    rows = np.sort(np.where(finite, rows, np.nan), axis=1)
    count = finite.sum(axis=1, keepdims=True)
    place = np.maximum(count - 1, 0) * points
    low, high = np.floor(place).astype(np.intp), np.ceil(place).astype(np.intp)
    below = np.take_along_axis(rows, low, axis=1).astype(np.float64)
    above = np.take_along_axis(rows, high, axis=1).astype(np.float64)
    return between(below, above, place - low).T + 0.0


def sketch_groups(
    values: np.ndarray,
    geometry: Geometry,
    start: tuple[int, ...],
    levels: tuple[float, float],
    k: int,
) -> QuantileSketches:
    """Return a sketch of the finite elements of each group of a block.

    Parameters
    ----------
    values, geometry, start, levels
        As of `whole_quantiles`; groups may reach beyond the block.
    k : int
        Capacity of the sketches.

    Raises
    ------
    InputError
        When the package that sketches come from is not installed.
    """
    shape = region_shape(geometry, values.shape, start)
    sketches: list[Any] = [None] * prod(shape)
    for groups, rows in row_tiles(values, geometry, start):
        wide = rows.astype(np.float64)
        # Adding 0 makes 0.0 of -0.0, which no order tells apart.
        wide += 0.0
        finite = np.isfinite(wide)
        complete = bool(finite.all())
        for group, row, good in zip(groups.tolist(), wide, finite, strict=True):
            some = row if complete else row[good]
            if some.size:
                if sketches[group] is None:
                    sketches[group] = new_sketch(k)
                sketches[group].update(some)
    images = np.empty(len(sketches), object)
    images[:] = [b"" if sketch is None else bytes(sketch.serialize()) for sketch in sketches]
    return QuantileSketches(images.reshape(shape), levels)
