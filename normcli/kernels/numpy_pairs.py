"""Sums over pairs of elements: NumPy in float64, one tile of at most 64 Ki pairs at a time."""

from __future__ import annotations

from dataclasses import fields
from math import prod

import numpy as np

from normcli.domain.geometry import Geometry
from normcli.domain.integer_origins import difference, halves, has_origins
from normcli.domain.pair_moments import PairMoments, sum_and_rest
from normcli.kernels.numpy_tiles import tile_shape
from normcli.kernels.pieces import Dense, Piece, cut, region_shape, tiles


def measure_pairs(
    values: np.ndarray, target: np.ndarray, cells: Geometry, start: tuple[int, ...]
) -> PairMoments:
    """Return the sums over the pairs of one block.

    Parameters
    ----------
    values : ndarray of float64
        The normalized block, in C order.
    target : ndarray
        Its targets, in C order, of any real type of native byte order.
    cells : Geometry
        Of the whole array; its kept axes are those of the cells.
    start : tuple of int
        Lower corner of the block in the whole array.

    Returns
    -------
    PairMoments
        Of the extents of ``cells.region(start, stop)``.
    """
    block = Dense.of(values)
    shape = region_shape(cells, values.shape, start)
    result = PairMoments.identity((prod(shape),))
    flat_target = target.reshape(-1)
    for piece in cut(block, cells, start):
        _measure_piece(block.flat, flat_target, piece, result)
    return result.reshape(shape)


def tile_pairs(values: np.ndarray, target: np.ndarray) -> PairMoments:
    """Return the sums over each row of two matrices, in two passes.

    Both passes subtract a pair of the row first, so that rows of equal elements have exactly that
    mean and no spread. Both are of float64, or targets of int64 or uint64, from which it is
    subtracted as an integer: beyond 2**53 float64 would take their spread away.
    """
    finite = np.isfinite(values) & np.isfinite(target)
    count = np.count_nonzero(finite, axis=1).astype(np.int64)
    every = bool(finite.all())
    first = finite.argmax(axis=1)[:, np.newaxis]
    divisor = np.maximum(count, 1)
    parts = []
    with np.errstate(over="ignore", invalid="ignore"):
        for elements in (values, target):
            pair = np.take_along_axis(elements, first, 1)[:, 0]
            shift = np.where(count > 0, pair, elements.dtype.type(0))
            if has_origins(elements.dtype):
                distance = difference(elements, shift[:, np.newaxis])
                shift, below = sum_and_rest(*halves(shift))
            else:
                distance, below = elements - shift[:, np.newaxis], np.zeros_like(shift)
            if not every:
                distance[~finite] = 0.0
            offset = distance.sum(axis=1) / divisor
            distance -= offset[:, np.newaxis]
            if not every:
                distance[~finite] = 0.0
            mean, tail = sum_and_rest(shift, offset)
            parts.append((mean, tail + below, distance))
        (mean, tail, z), (target_mean, target_tail, t) = parts
        product = (z * t).sum(axis=1)
        m2 = np.square(z, out=z).sum(axis=1)
        target_m2 = np.square(t, out=t).sum(axis=1)
    skipped = values.shape[1] - count
    return PairMoments(count, mean, tail, target_mean, target_tail, m2, target_m2, product, skipped)


def _measure_piece(
    values: np.ndarray, target: np.ndarray, piece: Piece, result: PairMoments
) -> None:
    elements, targets = piece.elements(values), piece.elements(target)
    own = PairMoments(*(piece.statistics(getattr(result, f.name)) for f in fields(result)))
    kept = [i for i, axis in enumerate(piece.axes) if axis.kept]
    order = kept + [i for i, axis in enumerate(piece.axes) if not axis.kept]
    kind = target.dtype if has_origins(target.dtype) else np.dtype(np.float64)
    for box in tiles(piece.shape, tile_shape(piece.axes)):
        extents = elements[box].transpose(order).shape[: len(kept)]
        rows = (
            each[box].transpose(order).astype(dtype, order="C").reshape(prod(extents), -1)
            for each, dtype in ((elements, np.float64), (targets, kind))
        )
        place = tuple(box[i] for i in kept)
        own.store(place, own[place].merge(tile_pairs(*rows).reshape(extents)))
