"""Compiled sums over columns of floats: the innermost axis is kept, each element of it is a lane.

Strips of at most `WIDTH` lanes are taken in tiles of `HEIGHT` rows. Each lane has a power of two
above its elements, and sums in its units (`numba_splits`), a whole tile in one pass; lanes
for which that power did not hold in a tile are gathered and added as rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from normcli.kernels.numba_floats import add_tile
from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_lane_extremes import (
    clear_extremes,
    extremes_of_tile,
    largest_magnitude,
    least_magnitudes,
    take_extremes,
    which_hold,
)
from normcli.kernels.numba_lane_room import (
    ABOVE,
    ANCHOR,
    FIRST,
    FLOOR,
    FOURTH,
    HEIGHT,
    HIGH,
    HOLDS,
    LOW,
    PITCH,
    POWER,
    REST,
    SCALE,
    SECOND,
    SEEN,
    THIRD,
    TOTAL,
    WIDTH,
)
from normcli.kernels.numba_lane_sums import sum_tile
from normcli.kernels.numba_splits import anchor_of, floor_of, limits, power_above, put_sums, units
from normcli.kernels.numba_widen import load_rows

# Tiles whose integer sums, each up to 2**53, are sure to fit in int64.
_TILES = 512


@jit(LANES)
def _take(width: int, rows: int, acc: Any, ext: Any, counts: Any) -> None:
    """Add the sums of lanes that hold to their integers."""
    for j in range(width):
        holds = ext[HOLDS + j] != 0
        counts[TOTAL - PITCH + j] += units(acc[TOTAL + j] if holds else 0.0, 1)
        counts[REST - PITCH + j] += units(acc[REST + j] if holds else 0.0, 2)
        counts[FIRST - PITCH + j] += units(acc[FIRST + j] if holds else 0.0, 1)
        counts[SECOND - PITCH + j] += units(acc[SECOND + j] if holds else 0.0, 2)
        counts[THIRD - PITCH + j] += units(acc[THIRD + j] if holds else 0.0, 3)
        counts[FOURTH - PITCH + j] += units(acc[FOURTH + j] if holds else 0.0, 4)
        counts[SEEN + j] += rows if holds else 0


@jit(LANES, inline=True)
def _flush(g: int, j: int, counts: Any, sums: Any) -> None:
    if counts[SEEN + j]:
        put_sums(
            g, counts[POWER + j], counts[j], counts[PITCH + j], counts[2 * PITCH + j],
            counts[3 * PITCH + j], counts[4 * PITCH + j], counts[5 * PITCH + j], sums,
        )  # fmt: skip
        sums.count[g] += counts[SEEN + j]
    for i in range(6):
        counts[i * PITCH + j] = 0
    counts[SEEN + j] = 0


@jit(LANES, inline=True)
def _set_power(tile: Any, j: int, e: int, acc: Any, ext: Any, counts: Any) -> None:
    mantissa, bias, reach, lowest = limits(tile)
    counts[POWER + j] = e
    acc[SCALE + j] = math.ldexp(1.0, -e)
    acc[ANCHOR + j] = anchor_of(e) if mantissa == 23 else 0.0
    ext[ABOVE + j] = (e + bias) << mantissa
    ext[FLOOR + j] = floor_of(e, mantissa, bias, reach, lowest)


@jit(LANES)
def _strip(
    flat: Any,
    half: Any,
    scratch: Any,
    room: Any,
    at: int,
    height: int,
    stride: int,
    width: int,
    group: int,
    owner: Any,
    sums: Any,
) -> None:
    acc, counts, ext, column, zeros = room
    integer = ext.dtype.type
    bits = 8 * ext.itemsize
    top = integer(-(1 << (bits - 1)))
    mask = integer((1 << (bits - 1)) - 1)
    floats = ext.view(column.dtype)
    for j in range(width):
        acc[LOW + j] = np.inf
        acc[HIGH + j] = -np.inf
        counts[SEEN + j] = 0
        _flush(0, j, counts, sums)
    tiles = 0
    for first in range(0, height, HEIGHT):
        rows = min(HEIGHT, height - first)
        begin = at + first * stride
        tile, pitch = load_rows(flat, begin, rows, stride, width, half, scratch)
        keys = tile.view(ext.dtype)
        clear_extremes(keys, width, top, ext)
        if first == 0:
            mantissa, bias, _, lowest = limits(tile)
            extremes_of_tile(keys, pitch, width, rows, top, ext)
            for j in range(width):
                e = power_above(largest_magnitude(j, mask, top, ext), mantissa, bias, lowest)
                _set_power(tile, j, min(e + 1, bias + 1), acc, ext, counts)
        sum_tile(tile, keys, pitch, width, rows, zeros, top, acc, ext)
        least_magnitudes(keys, pitch, width, rows, mask, top, ext)
        every = which_hold(width, mask, top, ext)
        _take(width, rows, acc, ext, counts)
        take_extremes(width, top, acc, ext, floats)
        tiles += 1
        if not every:
            for j in range(width):
                if not ext[HOLDS + j]:
                    g = group + owner[j]
                    for i in range(rows):
                        column[i] = tile[i * pitch + j]
                    sums.guess[0] = counts[POWER + j]
                    add_tile(column[:rows], g, sums)
                    if sums.guess[0] != counts[POWER + j]:
                        _flush(g, j, counts, sums)
                        _set_power(tile, j, sums.guess[0], acc, ext, counts)
        if tiles == _TILES or first + HEIGHT >= height:
            tiles = 0
            for j in range(width):
                _flush(group + owner[j], j, counts, sums)
    for j in range(width):
        g = group + owner[j]
        sums.low[g] = min(sums.low[g], acc[LOW + j])
        sums.high[g] = max(sums.high[g], acc[HIGH + j])


@jit(LANES, entry=True)
def columns(
    flat: Any,
    half: Any,
    scratch: Any,
    room: Any,
    origin: int,
    shape: Any,
    strides: Any,
    steps: Any,
    height: int,
    stride: int,
    group: int,
    owner: Any,
    sums: Any,
) -> None:
    """Add columns of `height` elements, on three outer axes, to their groups.

    Lane j of each step belongs to group + owner[j] + steps.
    """
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                at = origin + a * strides[0] + b * strides[1] + c * strides[2]
                g = group + a * steps[0] + b * steps[1] + c * steps[2]
                for first in range(0, owner.size, WIDTH):
                    lanes = min(WIDTH, owner.size - first)
                    _strip(
                        flat, half, scratch, room, at + first, height, stride, lanes,
                        g, owner[first : first + lanes], sums,
                    )  # fmt: skip
