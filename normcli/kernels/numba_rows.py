"""Compiled sums over rows: the innermost axis is aggregated.

Each row is taken in tiles that fit the L1 cache. A tile is summed around the running mean of its
group, then merged into it by the update of Chan et al.: the squares around the running mean
exceed those around the tile's own mean by n * jump**2, and once the group has as many elements as
the tile at least half of that is in the merged sum of squares as well, so that nothing cancels.
Smaller groups (the first tile above all) are summed again around the tile's own mean where needed.

The order of operations within a group depends on its own elements alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

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
    _merge(g, n, shift, offset, spread, count, mean, tail, m2)


@jit(LANES)
def _merge(
    g: int,
    n: int,
    shift: float,
    offset: float,
    spread: float,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
) -> None:
    """Merge n elements of mean `shift` + `offset` into group g."""
    seen = count[g]
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
def _byte_sums(tile: Any) -> Any:
    """Return exact sums of 8-bit integers: 4096 squares of at most 255**2 leave room in 32 bits."""
    total = np.int32(0)
    squares = np.int32(0)
    for i in range(tile.size):
        value = np.int32(tile[i])
        total = np.int32(total + value)
        squares = np.int32(squares + np.int32(value * value))
    return np.int64(total), np.int64(squares)


@jit(LANES)
def _short_sums(tile: Any) -> Any:
    """Return exact sums of 16-bit integers: 4096 squares of at most 65535**2 leave room in 64."""
    total = np.int32(0)
    squares = np.int64(0)
    for i in range(tile.size):
        value = np.int32(tile[i])
        total = np.int32(total + value)
        squares += np.int64(np.uint32(value * value))
    return np.int64(total), squares


@jit(LANES)
def _add_integers(
    tile: Any,
    total: int,
    squares: int,
    g: int,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
    low: Any,
    high: Any,
) -> None:
    """Merge one tile of narrow integers into group g, by its exact sums.

    uint8 is measured 6 times as fast as by widening it to float32.
    """
    least = tile[0]
    most = tile[0]
    for i in range(tile.size):
        value = tile[i]
        least = value if value < least else least
        most = value if value > most else most
    n = tile.size
    low[g] = min(low[g], np.float64(least))
    high[g] = max(high[g], np.float64(most))
    # Both products are below 4096**2 * 65535**2 < 2**57.
    spread = (n * squares - total * total) / n
    _merge(g, n, total / n, 0.0, spread, count, mean, tail, m2)


def add_part(
    flat: Any,
    first: int,
    last: int,
    half: Any,
    scratch: Any,
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
    """Merge elements of a flat block into group g, in the way that its type is best taken."""
    raise NotImplementedError("only for compiled code")


@overload(add_part)
def _add_part(
    flat: Any,
    first: Any,
    last: Any,
    half: Any,
    scratch: Any,
    pair: Any,
    g: Any,
    count: Any,
    mean: Any,
    tail: Any,
    m2: Any,
    low: Any,
    high: Any,
    bad: Any,
) -> Callable[..., Any]:
    bytes_ = flat.dtype in (types.uint8, types.int8)
    shorts = flat.dtype in (types.uint16, types.int16) and isinstance(half, types.NoneType)
    if bytes_ or shorts:
        sums = _byte_sums if bytes_ else _short_sums

        def exact(
            flat: Any,
            first: Any,
            last: Any,
            half: Any,
            scratch: Any,
            pair: Any,
            g: Any,
            count: Any,
            mean: Any,
            tail: Any,
            m2: Any,
            low: Any,
            high: Any,
            bad: Any,
        ) -> None:
            tile = flat[first:last]
            total, squares = sums(tile)
            _add_integers(tile, total, squares, g, count, mean, tail, m2, low, high)

        return exact

    def widened(
        flat: Any,
        first: Any,
        last: Any,
        half: Any,
        scratch: Any,
        pair: Any,
        g: Any,
        count: Any,
        mean: Any,
        tail: Any,
        m2: Any,
        low: Any,
        high: Any,
        bad: Any,
    ) -> None:
        tile = load(flat, first, last, half, scratch)
        _add(tile, pair, g, count, mean, tail, m2, low, high, bad)

    return widened


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
                        add_part(
                            flat, first, last, half, scratch, pair,
                            g, count, mean, tail, m2, low, high, bad,
                        )  # fmt: skip
