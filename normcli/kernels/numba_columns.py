"""Compiled sums over columns: the innermost axis is kept, each of its elements is a lane.

Strips of at most `WIDTH` lanes are taken in tiles of `HEIGHT` rows. Each lane sums around its own
running mean (its first element at first) and is merged by the update of Chan et al. after every
tile. A lane's squares exceed those around its tile's mean by at most `HEIGHT` times, so that no
more than HEIGHT * 2**-53 = 3e-14 of them is lost.

The order of operations within a lane depends on its own elements alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_widen import load

WIDTH = 1024
HEIGHT = 256
# Accumulators lie in one array at constant distances, so that the compiler sees that they do not
# overlap; the distance is no multiple of 4 KiB, which would put all of them in the same sets of
# the L1 cache.
PITCH = WIDTH + 40
SHIFT, TOTAL, SQUARES, COUNT = 0, PITCH, 2 * PITCH, 3 * PITCH
SEEN, MEAN, M2, LOW, HIGH = 4 * PITCH, 5 * PITCH, 6 * PITCH, 7 * PITCH, 8 * PITCH
TAIL = 9 * PITCH
ACCUMULATORS = 10 * PITCH


@jit(LANES)
def _sum_row(row: Any, acc: Any) -> None:
    for j in range(row.size):
        distance = row[j] - acc[SHIFT + j]
        acc[TOTAL + j] += distance
        acc[SQUARES + j] += distance * distance


@jit(LANES)
def _sum_four_rows(one: Any, two: Any, three: Any, four: Any, acc: Any) -> None:
    for j in range(one.size):
        shift = acc[SHIFT + j]
        a = one[j] - shift
        b = two[j] - shift
        c = three[j] - shift
        d = four[j] - shift
        acc[TOTAL + j] += (a + b) + (c + d)
        acc[SQUARES + j] += (a * a + b * b) + (c * c + d * d)


@jit(LANES)
def _sum_finite_row(row: Any, acc: Any) -> None:
    for j in range(row.size):
        value = np.float64(row[j])
        finite = abs(value) < np.inf
        distance = value - acc[SHIFT + j] if finite else 0.0
        acc[TOTAL + j] += distance
        acc[SQUARES + j] += distance * distance
        acc[COUNT + j] += 1.0 if finite else 0.0


@jit(LANES)
def _extremes_row(row: Any, ext: Any) -> None:
    for j in range(row.size):
        value = row[j]
        ext[j] = value if value < ext[j] else ext[j]
        ext[PITCH + j] = value if value > ext[PITCH + j] else ext[PITCH + j]


@jit(LANES)
def _extremes_four_rows(one: Any, two: Any, three: Any, four: Any, ext: Any) -> None:
    for j in range(one.size):
        a, b, c, d = one[j], two[j], three[j], four[j]
        least = a if a < b else b
        other = c if c < d else d
        least = least if least < other else other
        ext[j] = least if least < ext[j] else ext[j]
        most = a if a > b else b
        other = c if c > d else d
        most = most if most > other else other
        ext[PITCH + j] = most if most > ext[PITCH + j] else ext[PITCH + j]


@jit(LANES)
def _finite_extremes_row(row: Any, acc: Any) -> None:
    for j in range(row.size):
        value = np.float64(row[j])
        finite = abs(value) < np.inf
        low = acc[LOW + j]
        high = acc[HIGH + j]
        acc[LOW + j] = value if finite and value < low else low
        acc[HIGH + j] = value if finite and value > high else high


@jit(LANES)
def _sum_tile(tile: Any, stride: int, width: int, height: int, acc: Any, ext: Any) -> bool:
    """Sum a tile that may be finite; return whether it was."""
    # Loops, not slices: an assignment of a slice takes 2 s to compile, for its error message.
    for j in range(width):
        acc[TOTAL + j] = 0.0
        acc[SQUARES + j] = 0.0
        ext[j] = tile[j]
        ext[PITCH + j] = tile[j]
    i = 0
    # Four rows at a time stay in the L1 cache for their extremes, and share the accumulators.
    while i + 4 <= height:
        one = tile[i * stride : i * stride + width]
        two = tile[(i + 1) * stride : (i + 1) * stride + width]
        three = tile[(i + 2) * stride : (i + 2) * stride + width]
        four = tile[(i + 3) * stride : (i + 3) * stride + width]
        _sum_four_rows(one, two, three, four, acc)
        _extremes_four_rows(one, two, three, four, ext)
        i += 4
    while i < height:
        row = tile[i * stride : i * stride + width]
        _sum_row(row, acc)
        _extremes_row(row, ext)
        i += 1
    finite = True
    for j in range(width):
        finite &= abs(acc[TOTAL + j]) < np.inf
    if finite:
        for j in range(width):
            acc[COUNT + j] = height
            acc[LOW + j] = min(acc[LOW + j], np.float64(ext[j]))
            acc[HIGH + j] = max(acc[HIGH + j], np.float64(ext[PITCH + j]))
    return finite


@jit(LANES)
def _sum_finite_tile(tile: Any, stride: int, width: int, height: int, acc: Any) -> None:
    """Sum the finite elements of a tile that has others."""
    for j in range(width):
        i = 0
        if acc[SEEN + j] == 0.0:
            while i < height - 1 and not abs(np.float64(tile[i * stride + j])) < np.inf:
                i += 1
            acc[SHIFT + j] = np.float64(tile[i * stride + j])
            if not abs(acc[SHIFT + j]) < np.inf:
                acc[SHIFT + j] = 0.0
        acc[TOTAL + j] = 0.0
        acc[SQUARES + j] = 0.0
        acc[COUNT + j] = 0.0
    for i in range(height):
        _sum_finite_row(tile[i * stride : i * stride + width], acc)
        _finite_extremes_row(tile[i * stride : i * stride + width], acc)
    for j in range(width):
        if not abs(acc[TOTAL + j]) < np.inf:
            # A sum beyond 1.8e308: the mean can still be had, the squares cannot.
            mean = 0.0
            for i in range(height):
                value = np.float64(tile[i * stride + j])
                if abs(value) < np.inf:
                    mean += value / acc[COUNT + j]
            acc[SHIFT + j] = mean
            acc[TOTAL + j] = 0.0
            acc[SQUARES + j] = np.inf


@jit(LANES)
def _merge_tile(width: int, acc: Any) -> None:
    for j in range(width):
        n = acc[COUNT + j]
        seen = acc[SEEN + j]
        offset = acc[TOTAL + j] / max(n, 1.0)
        spread = max(acc[SQUARES + j] - acc[TOTAL + j] * offset, 0.0)
        # Both means from the shift, so that nothing is lost where it is large (see `fine`).
        base = acc[SHIFT + j]
        before = (acc[MEAN + j] - base) + acc[TAIL + j]
        jump = offset - before
        share = n / max(seen + n, 1.0)
        after = before + jump * share if seen > 0.0 else offset
        mean = base + after
        part = mean - base
        tail = (base - (mean - part)) + (after - part)
        acc[MEAN + j] = mean
        acc[TAIL + j] = tail if abs(tail) < np.inf else 0.0
        more = jump * jump * (seen * share)
        acc[M2 + j] += spread + (more if seen > 0.0 and n > 0.0 else 0.0)
        acc[SEEN + j] = seen + n


@jit(LANES)
def columns(
    flat: Any,
    half: Any,
    scratch: Any,
    acc: Any,
    ext: Any,
    origin: int,
    shape: Any,
    strides: Any,
    steps: Any,
    height: int,
    stride: int,
    width: int,
    group: int,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
    low: Any,
    high: Any,
    bad: Any,
) -> None:
    """Store the moments of `width` columns of `height` elements, on three outer kept axes.

    Lane j of each step belongs to group + j + steps; each group is met once.
    """
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                at = origin + a * strides[0] + b * strides[1] + c * strides[2]
                g = group + a * steps[0] + b * steps[1] + c * steps[2]
                for first in range(0, width, WIDTH):
                    lanes = min(WIDTH, width - first)
                    _strip(flat, half, scratch, acc, ext, at + first, height, stride, lanes)
                    for j in range(lanes):
                        i = g + first + j
                        count[i] = np.int64(acc[SEEN + j])
                        mean[i] = acc[MEAN + j]
                        tail[i] = acc[TAIL + j]
                        m2[i] = acc[M2 + j]
                        low[i] = acc[LOW + j]
                        high[i] = acc[HIGH + j]
                        bad[i] = height - count[i]


def _load_tile(
    flat: Any, begin: int, rows: int, stride: int, width: int, half: Any, scratch: Any
) -> Any:
    raise NotImplementedError("only for compiled code")


@overload(_load_tile)
def _load_tile_as(
    flat: Any, begin: Any, rows: Any, stride: Any, width: Any, half: Any, scratch: Any
) -> Callable[..., Any]:
    """Return a tile and the stride of its rows; 16-bit floats are widened side by side."""
    if isinstance(scratch, types.NoneType):

        def view(
            flat: Any, begin: Any, rows: Any, stride: Any, width: Any, half: Any, scratch: Any
        ) -> Any:
            return flat[begin : begin + (rows - 1) * stride + width], stride

        return view

    def wide(
        flat: Any, begin: Any, rows: Any, stride: Any, width: Any, half: Any, scratch: Any
    ) -> Any:
        for i in range(rows):
            first = begin + i * stride
            load(flat, first, first + width, half, scratch[i * width : (i + 1) * width])
        return scratch[: rows * width], width

    return wide


@jit(LANES)
def _strip(
    flat: Any,
    half: Any,
    scratch: Any,
    acc: Any,
    ext: Any,
    at: int,
    height: int,
    stride: int,
    width: int,
) -> None:
    for j in range(width):
        acc[SEEN + j] = 0.0
        acc[MEAN + j] = 0.0
        acc[TAIL + j] = 0.0
        acc[M2 + j] = 0.0
        acc[LOW + j] = np.inf
        acc[HIGH + j] = -np.inf
    for first in range(0, height, HEIGHT):
        rows = min(HEIGHT, height - first)
        begin = at + first * stride
        tile, pitch = _load_tile(flat, begin, rows, stride, width, half, scratch)
        for j in range(width):
            acc[SHIFT + j] = acc[MEAN + j] if acc[SEEN + j] > 0.0 else np.float64(tile[j])
        if not _sum_tile(tile, pitch, width, rows, acc, ext):
            _sum_finite_tile(tile, pitch, width, rows, acc)
        _merge_tile(width, acc)
