"""Quantiles of the groups of one block: exact where it holds them whole, else by sketches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from math import prod
from typing import Any

import numpy as np

from normcli.domain.dtypes import is_bfloat16
from normcli.domain.geometry import Geometry
from normcli.domain.integer_images import images_of
from normcli.domain.integer_origins import has_origins
from normcli.domain.interpolation import between, between_integers
from normcli.domain.quantile_sketches import QuantileSketches, new_sketch
from normcli.kernels.group_rows import row_tiles
from normcli.kernels.pieces import region_shape


def whole_quantiles(
    values: np.ndarray,
    geometry: Geometry,
    start: tuple[int, ...],
    levels: tuple[float, float],
    stored: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
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
    stored : ndarray of bool, optional
        Which elements count; all without it. Of the extents and the memory order of `values`.

    Returns
    -------
    found : ndarray of float64
        The three along the first axis, then the extents of ``geometry.region(start, stop)``: with
        the bits of ``numpy.nanquantile`` over the finite elements in float64; NaN without any.
    rests : ndarray of float64 or None
        What 64-bit integers beyond 2**53 lack: their quantiles are the sums of both. None for
        other types.
    """
    shape = region_shape(geometry, values.shape, start)
    found = np.full((3, prod(shape)), np.nan)
    rests = np.zeros_like(found) if has_origins(values.dtype) else None
    points = np.array([levels[0], 0.5, levels[1]])
    # What is not stored has no place in an order, as what is not finite.
    counted: Iterator[np.ndarray | None] = repeat(None)
    if stored is not None:
        counted = (rows for _, rows in row_tiles(stored, geometry, start, whole=True))
    for (groups, rows), known in zip(
        row_tiles(values, geometry, start, whole=True), counted, strict=False
    ):
        below, above, share = _ends(rows, points, known)
        if rests is None:
            found[:, groups] = (
                between(below.astype(np.float64), above.astype(np.float64), share).T + 0.0
            )
        else:
            pair = between_integers(below, above, share)
            found[:, groups], rests[:, groups] = (part.T + 0.0 for part in pair)
            if known is not None:
                empty = groups[~known.any(axis=1)]
                found[:, empty], rests[:, empty] = np.nan, 0.0
    full = (3, *shape)
    return found.reshape(full), None if rests is None else rests.reshape(full)


def _ends(
    rows: np.ndarray, points: np.ndarray, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two elements that each quantile of a row is between, and how far it is."""
    if is_bfloat16(rows.dtype):
        rows = rows.astype(np.float32)
    finite = np.isfinite(rows) if rows.dtype.kind == "f" else None
    if known is not None:
        finite = known if finite is None else finite & known
    if finite is None or finite.all():
        place = (rows.shape[1] - 1) * points
        low, high = np.floor(place).astype(np.intp), np.ceil(place).astype(np.intp)
        rows = np.partition(rows, sorted({*low.tolist(), *high.tolist()}), axis=1)
        return rows[:, low], rows[:, high], place - low
    # What sorts last is behind the finite elements, or is the same as the largest of them.
    last = np.iinfo(rows.dtype).max if has_origins(rows.dtype) else np.nan
    rows = np.sort(np.where(finite, rows, np.array(last, _sorted_type(rows.dtype))), axis=1)
    count = finite.sum(axis=1, keepdims=True)
    place = np.maximum(count - 1, 0) * points
    low, high = np.floor(place).astype(np.intp), np.ceil(place).astype(np.intp)
    below, above = (np.take_along_axis(rows, index, axis=1) for index in (low, high))
    return below, above, place - low


def _sorted_type(dtype: np.dtype) -> np.dtype:
    """Return the type in which elements are sorted that have others, which do not count."""
    return dtype if dtype.kind == "f" or has_origins(dtype) else np.dtype(np.float64)


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
    integers = values.dtype if has_origins(values.dtype) else None
    sketches: list[Any] = [None] * prod(shape)
    for groups, rows in row_tiles(values, geometry, start):
        if integers is not None:
            wide = images_of(rows)
        else:
            wide = rows.astype(np.float64)
            # Adding 0 makes 0.0 of -0.0, which no order tells apart.
            wide += 0.0
        finite = None if integers is not None else np.isfinite(wide)
        complete = finite is None or bool(finite.all())
        for place, (group, row) in enumerate(zip(groups.tolist(), wide, strict=True)):
            some = row if complete or finite is None else row[finite[place]]
            if some.size:
                if sketches[group] is None:
                    sketches[group] = new_sketch(k)
                sketches[group].update(some)
    images = np.empty(len(sketches), object)
    images[:] = [b"" if sketch is None else bytes(sketch.serialize()) for sketch in sketches]
    return QuantileSketches(images.reshape(shape), levels, integers)
