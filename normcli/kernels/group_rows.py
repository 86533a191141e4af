"""The elements of a block as rows, one for each group: for what works on rows."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from normcli.domain.geometry import Geometry
from normcli.kernels.numpy_tiles import TILE, tile_shape
from normcli.kernels.pieces import Axis, Dense, cut, region_shape, tiles

Rows = Iterator[tuple[np.ndarray, np.ndarray]]


def row_tiles(
    values: np.ndarray, geometry: Geometry, start: tuple[int, ...], whole: bool = False
) -> Rows:
    """Yield groups of a block, and some of their elements.

    Parameters
    ----------
    values : ndarray
        The block, in any memory order.
    geometry : Geometry
        Of the whole array.
    start : tuple of int
        Lower corner of the block in the whole array.
    whole : bool
        All elements of a group that are in the block at once, however many; otherwise at most
        `TILE` elements of all rows together.

    Yields
    ------
    groups : ndarray of int
        Flat indices into the extents of ``geometry.region(start, stop)``.
    rows : ndarray
        Dense, of the type of the block: a row for each of these groups.
    """
    block = Dense.of(values)
    numbers = np.arange(prod(region_shape(geometry, values.shape, start)))
    for piece in cut(block, geometry, start):
        elements, places = piece.elements(block.flat), piece.statistics(numbers)
        kept = [i for i, axis in enumerate(piece.axes) if axis.kept]
        order = kept + [i for i, axis in enumerate(piece.axes) if not axis.kept]
        tile = _whole_rows(piece.axes) if whole else tile_shape(piece.axes)
        for box in tiles(piece.shape, tile):
            part = elements[box].transpose(order)
            rows = np.ascontiguousarray(part).reshape(prod(part.shape[: len(kept)]), -1)
            yield places[tuple(box[i] for i in kept)].reshape(-1), rows


def _whole_rows(axes: tuple[Axis, ...]) -> tuple[int, ...]:
    """Return a tile of whole groups: as many as `TILE` elements hold, one at least."""
    left = max(1, TILE // prod(axis.extent for axis in axes if not axis.kept))
    tile = []
    for axis in reversed(axes):
        extent = axis.extent
        if axis.kept:
            extent = min(extent, left)
            left = max(1, left // extent)
        tile.append(extent)
    return tuple(reversed(tile))
