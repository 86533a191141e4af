"""Compiled sums over rows: the innermost axis is aggregated.

Each row is taken in tiles that fit the L1 cache. A tile is summed around the running mean of its
group, then merged into it by the update of Chan et al.: the squares around the running mean
exceed those around the tile's own mean by n * jump**2, and once the group has as many elements as
the tile at least half of that is in the merged sum of squares as well, so that nothing cancels.
Smaller groups (the first tile above all) are summed again around the tile's own mean where needed.

The order of operations within a group depends on its own elements alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from normcli.kernels.numba_extremes import extremes
from normcli.kernels.numba_jit import LANES, SUMS, jit
from normcli.kernels.numba_widen import load

# 16 KiB of float32, 32 KiB of float64.
TILE = 4096
# A tile is summed again when more than this share of its squares is due to the shift.
SHIFTED = 63.0 / 64.0


@jit(SUMS)
def _sums(tile: Any, shift: float) -> Any:
    total = 0.0
    squares = 0.0
    for i in range(tile.size):
        distance = tile[i] - shift
        total += distance
        squares += distance * distance
    return total, squares


@jit(SUMS)
def _finite_sums(tile: Any, shift: float) -> Any:
    total = 0.0
    squares = 0.0
    count = 0
    finite: Any
    for i in range(tile.size):
        value = np.float64(tile[i])
        finite = abs(value) < np.inf
        distance = value - shift if finite else 0.0
        total += distance
        squares += distance * distance
        # Not "1 if finite else 0": that is not vectorized (3 GB/s instead of 14).
        count += finite
    return total, squares, count


@jit(LANES)
def _huge(tile: Any, count: int) -> float:
    """Return the mean of elements whose sum is beyond 1.8e308."""
    mean = 0.0
    for i in range(tile.size):
        value = np.float64(tile[i])
        if abs(value) < np.inf:
            mean += value / count
    return mean


@jit(LANES)
def two_sum(a: float, b: float) -> Any:
    """Return the rounded sum and its rounding error."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    return total, (error if abs(error) < np.inf else 0.0)


@jit(LANES)
def _first_finite(tile: Any) -> float:
    for i in range(tile.size):
        if abs(np.float64(tile[i])) < np.inf:
            return np.float64(tile[i])
    return 0.0


@jit(LANES)
def _add(
    tile: Any,
    pair: Any,
    g: int,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
    low: Any,
    high: Any,
    bad: Any,
) -> None:
    """Merge one tile into group g."""
    size = tile.size
    seen = count[g]
    shift = mean[g] if seen else np.float64(tile[0])
    n = size
    total, squares = _sums(tile, shift)
    finite = abs(total) < np.inf
    if finite:
        least, most = extremes(tile, True, pair)
    else:
        if not seen:
            shift = _first_finite(tile)
        total, squares, n = _finite_sums(tile, shift)
        bad[g] += size - n
        if n == 0:
            return
        least, most = extremes(tile, False, pair)
    if seen < n and total * total > SHIFTED * squares * n:
        shift = shift + total / n
        if finite:
            total, squares = _sums(tile, shift)
        else:
            total, squares, n = _finite_sums(tile, shift)
    offset = total / n
    spread = max(squares - total * offset, 0.0)
    if not abs(shift + offset) < np.inf:
        shift = _huge(tile, n)
        offset = 0.0
        spread = np.inf
    low[g] = min(low[g], least)
    high[g] = max(high[g], most)
    count[g] = seen + n
    if seen:
        # Both means from the group's, so that nothing is lost where it is large (see `fine`).
        base = mean[g]
        jump = ((shift - base) - tail[g]) + offset
        share = n / (seen + n)
        m2[g] += spread + jump * jump * (seen * share)
        mean[g], tail[g] = two_sum(base, tail[g] + jump * share)
    else:
        m2[g] = spread
        mean[g], tail[g] = two_sum(shift, offset)


@jit(LANES)
def rows(
    flat: Any,
    half: Any,
    scratch: Any,
    pair: Any,
    origin: int,
    shape: Any,
    strides: Any,
    steps: Any,
    length: int,
    group: int,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
    low: Any,
    high: Any,
    bad: Any,
) -> None:
    """Merge rows of `length` elements, on four outer axes, into their groups.

    `half` and `scratch` are those of `load`, `pair` is that of `extremes`.
    """
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                for d in range(shape[3]):
                    at = origin + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]
                    g = group + a * steps[0] + b * steps[1] + c * steps[2] + d * steps[3]
                    for first in range(at, at + length, TILE):
                        last = min(first + TILE, at + length)
                        tile = load(flat, first, last, half, scratch)
                        _add(tile, pair, g, count, mean, tail, m2, low, high, bad)
