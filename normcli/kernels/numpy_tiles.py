"""The reference kernels: NumPy in float64, one tile of at most 64 Ki elements at a time.

Slow (1.4 GB/s measured, 4.7 GB/s transformed on 2 threads) but short, so that it can be trusted;
it also carries the types that the compiled kernels leave out.
"""

from __future__ import annotations

from dataclasses import fields
from math import prod

import numpy as np

from normcli.domain.dtypes import is_float
from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.domain.transform import Transform
from normcli.kernels.fine import FineMoments, reshape, two_sum
from normcli.kernels.pieces import Axis, Dense, Piece, cut, flat_table, region_shape, tiles
from normcli.kernels.rounding import round_into

# 64 Ki float64 values are 512 KiB: tile and temporaries stay in the L2 cache.
TILE = 1 << 16
# Lanes of a tile whose innermost axis is kept: runs of at least 1 KiB for float32.
LANES = 1 << 8


def measure(values: np.ndarray, geometry: Geometry, start: tuple[int, ...]) -> Moments:
    """Return the moments of one block.

    Parameters
    ----------
    values : ndarray
        The block, in any memory order and any real type of native byte order.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.

    Returns
    -------
    Moments
        Of the extents of ``geometry.region(start, stop)``.
    """
    block = Dense.of(values)
    shape = region_shape(geometry, values.shape, start)
    result = FineMoments.identity((prod(shape),))
    shift = _integer_shift(block.flat)
    for piece in cut(block, geometry, start):
        _measure_piece(block.flat, piece, shift, result)
    if shift:
        _add_shift(result.moments, shift)
    return reshape(result.moments, shape)


def transform(
    values: np.ndarray,
    transform: Transform,
    geometry: Geometry,
    start: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Return ``((values - subtract) * factor) * multiply + add``, rounded once to `dtype`.

    Parameters
    ----------
    values : ndarray
        The block, in any memory order and any real type of native byte order.
    transform : Transform
        Tables cut to the block: kept tables to ``geometry.region``, scale tables to
        ``geometry.scale_region``.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.
    dtype : numpy.dtype
        Type of the result. Integers are rounded to nearest and clipped; NaN becomes 0.

    Returns
    -------
    ndarray
        Dense, in the memory order of `values`.
    """
    block = Dense.of(values)
    out = block.empty_like(np.dtype(dtype))
    tables = flat_tables(transform, geometry, values.shape, start)
    for piece in cut(block, geometry, start):
        transform_piece(block.flat, piece, tables, transform.inverse, out.flat)
    return out.values


def flat_tables(
    transform: Transform, geometry: Geometry, shape: tuple[int, ...], start: tuple[int, ...]
) -> tuple[np.ndarray | None, ...]:
    """Return subtract, factor, multiply and add as flat arrays, checked against the block."""
    along_groups = region_shape(geometry, shape, start)
    along_scale = tuple(shape[axis] for axis in geometry.scale_axes)
    first, second = along_groups, along_scale
    if transform.inverse:
        first, second = along_scale, along_groups
    pairs = (
        (transform.subtract, first),
        (transform.factor, first),
        (transform.multiply, second),
        (transform.add, second),
    )
    return tuple(None if table is None else flat_table(table, need) for table, need in pairs)


def transform_piece(
    flat: np.ndarray,
    piece: Piece,
    tables: tuple[np.ndarray | None, ...],
    inverse: bool,
    out: np.ndarray,
) -> None:
    """Transform one piece of a block into the same place of another."""
    first, second = piece.along_groups, piece.along_scale
    if inverse:
        first, second = second, first
    source, target = piece.elements(flat), piece.elements(out)
    views = [
        None if table is None else (first if position < 2 else second)(table)
        for position, table in enumerate(tables)
    ]
    steps = list(zip((np.subtract, np.multiply, np.multiply, np.add), views, strict=True))
    with np.errstate(all="ignore"):
        for box in tiles(piece.shape, _fill(piece.shape, TILE)):
            work = source[box].astype(np.float64)
            for operation, view in steps:
                if view is not None:
                    operation(work, view[box], out=work)
            round_into(work, target[box])


def part_of(result: FineMoments, piece: Piece) -> FineMoments:
    """Return a view of flat moments: the groups of one piece, on its kept axes."""
    parts = (piece.statistics(getattr(result.moments, f.name)) for f in fields(Moments))
    return FineMoments(Moments(*parts), piece.statistics(result.tail))


def tile_moments(elements: np.ndarray) -> FineMoments:
    """Return the moments of each row of a float64 matrix, in two passes.

    Both passes subtract an element of the row first (its minimum), so a row of equal values has
    exactly that mean and no spread.
    """
    finite = np.isfinite(elements)
    count = np.count_nonzero(finite, axis=1).astype(np.int64)
    every = bool(finite.all())
    low = (elements if every else np.where(finite, elements, np.inf)).min(axis=1)
    high = (elements if every else np.where(finite, elements, -np.inf)).max(axis=1)
    divisor = np.maximum(count, 1)
    shift = np.where(count > 0, low, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = elements - shift[:, np.newaxis]
        if not every:
            distance[~finite] = 0.0
        offset = distance.sum(axis=1) / divisor
        distance -= offset[:, np.newaxis]
        if not every:
            distance[~finite] = 0.0
        m2 = np.square(distance, out=distance).sum(axis=1)
        mean, tail = two_sum(shift, offset)
        lost = ~np.isfinite(mean)
        if lost.any():
            # Sums beyond 1.8e308: the mean can still be had, the squares cannot.
            shares = np.where(finite[lost], elements[lost], 0.0) / divisor[lost, np.newaxis]
            mean[lost] = shares.sum(axis=1)
        m2[np.isnan(m2)] = np.inf
    return FineMoments(Moments(count, mean, m2, low, high, elements.shape[1] - count), tail)


def _measure_piece(flat: np.ndarray, piece: Piece, shift: int, result: FineMoments) -> None:
    source, target = piece.elements(flat), part_of(result, piece)
    kept = [i for i, axis in enumerate(piece.axes) if axis.kept]
    order = kept + [i for i, axis in enumerate(piece.axes) if not axis.kept]
    for box in tiles(piece.shape, tile_shape(piece.axes)):
        tile = source[box].transpose(order)
        extents = tile.shape[: len(kept)]
        rows = _as_float64(tile, shift).reshape(prod(extents), -1)
        groups = tuple(box[i] for i in kept)
        part = tile_moments(rows).reshape(extents)
        target.store(groups, target[groups].merge(part))


def tile_shape(axes: tuple[Axis, ...]) -> tuple[int, ...]:
    """Choose the tile of a piece.

    How a group is cut depends on its aggregated axes alone (and on the lanes, where the innermost
    axis is kept), so its moments have the same bits however many groups a block holds.
    """
    lanes = min(axes[-1].extent, LANES) if axes[-1].kept else 1
    aggregated = _fill([1 if axis.kept else axis.extent for axis in axes], TILE // lanes)
    kept = _fill([axis.extent if axis.kept else 1 for axis in axes], TILE // prod(aggregated))
    return tuple(a * k for a, k in zip(aggregated, kept, strict=True))


def _fill(shape: list[int] | tuple[int, ...], budget: int) -> tuple[int, ...]:
    """Return the largest tile within `budget` elements that is whole along the inner axes."""
    tile = []
    for extent in reversed(shape):
        tile.append(max(1, min(extent, budget)))
        budget //= tile[-1]
    return tuple(reversed(tile))


def _as_float64(tile: np.ndarray, shift: int) -> np.ndarray:
    if not shift:
        return tile.astype(np.float64, order="C")
    # Modulo 2**64 the difference of two 64-bit integers is exact and not negative here.
    return (tile.astype(np.uint64) - np.uint64(shift % 2**64)).astype(np.float64, order="C")


def _integer_shift(flat: np.ndarray) -> int:
    """Return the integer to subtract before float64 would round, or 0 where it does not."""
    if is_float(flat.dtype) or flat.dtype.itemsize < 8:
        return 0
    low, high = int(flat.min()), int(flat.max())
    return low if max(-low, high) > 2**53 else 0


def _add_shift(result: Moments, shift: int) -> None:
    seen = result.count > 0
    for values in (result.mean, result.minimum, result.maximum):
        values[seen] += float(shift)
