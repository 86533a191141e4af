"""The reference kernels: NumPy in float64, one tile of at most 64 Ki elements at a time.

Slow (0.8 GB/s measured, 4.7 GB/s transformed on 2 threads) but short, so that it can be trusted;
it also carries the types that the compiled kernels leave out.
"""

from __future__ import annotations

from math import prod

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.domain.integer_origins import added_with_losses, difference
from normcli.domain.losses import Losses
from normcli.domain.transform import Transform
from normcli.kernels.numpy_sums import row_moments
from normcli.kernels.pieces import Axis, Dense, Piece, cut, flat_table, region_shape, tiles
from normcli.kernels.rounding import round_into
from normcli.kernels.wide_tables import WideTables, wide_tables

# 60 Ki float64 values are 480 KiB: tile and temporaries stay in the L2 cache, and with what numpy
# takes beside them in the 4 MiB that plans leave each worker.
TILE = 15 << 12
# Lanes of a tile whose innermost axis is kept: runs of at least 1 KiB for float32.
LANES = 1 << 8


def measure(values: np.ndarray, geometry: Geometry, start: tuple[int, ...]) -> ExactMoments:
    """Return the exact moments of one block.

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
    ExactMoments
        Of the extents of ``geometry.region(start, stop)``.
    """
    block = Dense.of(values)
    shape = region_shape(geometry, values.shape, start)
    result = ExactMoments.identity((prod(shape),))
    groups = np.arange(prod(shape))
    for piece in cut(block, geometry, start):
        result = _measure_piece(block.flat, piece, piece.statistics(groups), result)
    return result.reshape(shape)


def transform(
    values: np.ndarray,
    transform: Transform,
    geometry: Geometry,
    start: tuple[int, ...],
    dtype: np.dtype,
    losses: list[Losses] | None = None,
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
    losses : list of Losses, optional
        Takes the counts of both.

    Returns
    -------
    ndarray
        Dense, in the memory order of `values`.
    """
    block = Dense.of(values)
    out = block.empty_like(np.dtype(dtype))
    groups = region_shape(geometry, values.shape, start)
    transform, wide = wide_tables(transform, values.dtype, out.flat.dtype, groups)
    tables = flat_tables(transform, geometry, values.shape, start)
    for piece in cut(block, geometry, start):
        lost = transform_piece(block.flat, piece, tables, transform.inverse, out.flat, wide)
        if lost and losses is not None:
            losses.append(lost)
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
    wide: WideTables | None = None,
) -> Losses:
    """Transform one piece of a block into the same place of another; return what was lost."""
    losses = Losses()
    first, second = piece.along_groups, piece.along_scale
    if inverse:
        first, second = second, first
    source, target = piece.elements(flat), piece.elements(out)
    views = [
        None if table is None else (first if position < 2 else second)(table)
        for position, table in enumerate(tables)
    ]
    steps = list(zip((np.subtract, np.multiply, np.multiply, np.add), views, strict=True))
    origin = exponent = None
    if wide is not None:
        origin = None if wide.origin is None else piece.along_groups(wide.origin)
        exponent = None if wide.exponent is None else piece.along_groups(wide.exponent)
    with np.errstate(all="ignore"):
        for box in tiles(piece.shape, _fill(piece.shape, TILE)):
            if origin is not None and not inverse:
                work = difference(source[box], origin[box])
            else:
                work = source[box].astype(np.float64)
            if exponent is not None and not inverse:
                np.ldexp(work, -exponent[box], out=work)
            for operation, view in steps:
                if view is not None:
                    operation(work, view[box], out=work)
            if exponent is not None and inverse:
                np.ldexp(work, exponent[box], out=work)
            if origin is not None and inverse:
                target[box], lost = added_with_losses(origin[box], work)
            else:
                lost = round_into(work, target[box])
            if lost:
                losses += lost
    return losses


def _measure_piece(
    flat: np.ndarray, piece: Piece, places: np.ndarray, result: ExactMoments
) -> ExactMoments:
    source = piece.elements(flat)
    kept = [i for i, axis in enumerate(piece.axes) if axis.kept]
    order = kept + [i for i, axis in enumerate(piece.axes) if not axis.kept]
    for box in tiles(piece.shape, tile_shape(piece.axes)):
        tile = source[box].transpose(order)
        rows = np.ascontiguousarray(tile).reshape(prod(tile.shape[: len(kept)]), -1)
        groups = places[tuple(box[i] for i in kept)].reshape(-1)
        result = result.store(groups, result[groups].merge(row_moments(rows)))
    return result


def tile_shape(axes: tuple[Axis, ...]) -> tuple[int, ...]:
    """Choose the tile of a piece: whole groups where they fit, at most `TILE` elements."""
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
