"""Compiled walk over groups that are runs of memory: measured, and normalized from the cache.

A group is summed exactly, its sums are rounded to mean and m2, and its elements, which are in the
cache still, are normalized. Groups of float32 whose tiles all lie within the binades of one pass
are summed in three integers; others in limbs (`numba_sums`). Both are exact, so that the moments
have the bits of `numba_measure.measure` and `numba_finish.finish`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_affine import TILE as AFFINE_TILE
from normcli.kernels.numba_affine import by_second
from normcli.kernels.numba_finish import finish_groups
from normcli.kernels.numba_floats import ONE_PASS, add_tile, tile_sums
from normcli.kernels.numba_jit import EXACT, LANES, jit
from normcli.kernels.numba_splits import TILE, put_sums, units
from normcli.kernels.numba_spread import mean_and_m2
from normcli.kernels.numba_sums import carry

ZSCORE, STD, RMS, CENTER = range(4)
INSIDE, OUTSIDE, FLOOR = range(3)


@jit(LANES)
def _in_limbs(
    flat: Any, first: int, last: int, done: Any, g: int, found: Any, limbs: Any, room: Any
) -> bool:
    """Measure what is left of a group after `done`, exact sums of tiles; False: limbs too few."""
    n, e, s, a, b, low, high = done
    limbs.count[0] = n
    limbs.bad[0] = 0
    limbs.low[0] = low
    limbs.high[0] = high
    limbs.base[0] = limbs.start
    limbs.total[:] = 0
    limbs.squares[:] = 0
    limbs.escaped[0] = 0
    if n:
        put_sums(0, e, s, 0, a, b, 0, 0, limbs)
    for begin in range(first, last, TILE):
        add_tile(flat[begin : min(begin + TILE, last)], 0, limbs)
    if limbs.escaped[0]:
        return False
    carry(limbs.total)
    carry(limbs.squares)
    count, bad, lows, highs, mean, m2 = found
    count[g], bad[g], lows[g], highs[g] = (
        limbs.count[0], limbs.bad[0], limbs.low[0], limbs.high[0]
    )  # fmt: skip
    finish_groups(
        limbs.count, limbs.base, limbs.total, limbs.squares, room[0], room[1],
        mean[g : g + 1], m2[g : g + 1],
    )  # fmt: skip
    return True


def _measure(
    flat: Any, first: int, last: int, g: int, found: Any, few: Any, many: Any, room: Any
) -> None:
    """Put down the moments of group g, which is ``flat[first:last]``."""
    raise NotImplementedError("only for compiled code")


@overload(_measure, jit_options={"forceinline": True})
def _measure_of_type(
    flat: Any, first: Any, last: Any, g: Any, found: Any, few: Any, many: Any, room: Any
) -> Callable[..., Any]:
    if flat.dtype == types.float32:

        def single(
            flat: Any, first: Any, last: Any, g: Any, found: Any, few: Any, many: Any, room: Any
        ) -> None:
            power = 0
            s = 0
            a = 0
            b = 0
            low = np.inf
            high = -np.inf
            for begin in range(first, last, TILE):
                end = min(begin + TILE, last)
                kind, e, total, _, upper, lower, _, _, least, most = tile_sums(
                    flat[begin:end], few.guess, few.room
                )
                if kind != ONE_PASS or (begin > first and e != power):
                    done = (begin - first, power, s, a, b, low, high)
                    if not _in_limbs(flat, begin, last, done, g, found, few, room):
                        _in_limbs(flat, begin, last, done, g, found, many, room)
                    return
                power = e
                s += units(total, 1)
                a += units(upper, 1)
                b += units(lower, 2)
                low = min(low, least)
                high = max(high, most)
            count, bad, lows, highs, mean, m2 = found
            count[g] = last - first
            bad[g] = 0
            lows[g] = low
            highs[g] = high
            mean[g], m2[g] = mean_and_m2(last - first, s, a, b, power)

        return single

    def double(
        flat: Any, first: Any, last: Any, g: Any, found: Any, few: Any, many: Any, room: Any
    ) -> None:
        done = (0, 0, 0, 0, 0, np.inf, -np.inf)
        if not _in_limbs(flat, first, last, done, g, found, few, room):
            _in_limbs(flat, first, last, done, g, found, many, room)

    return double


@jit(EXACT, inline=True)
def _constant(low: float, high: float, precision: int, smallest: float) -> bool:
    """Return whether a group is constant; as `domain.constancy.constant_groups` for floats."""
    size = max(abs(low), abs(high))
    # Most groups are not, by far.
    if high - low > size * 1e-5 and high - low > 4.0 * smallest:
        return False
    _, exponent = math.frexp(size)
    step = math.ldexp(1.0, exponent - precision) if size > 0.0 else 0.0
    return high - low <= 4.0 * max(step, smallest)


@jit(EXACT, inline=True)
def _fold(g: int, found: Any, formula: Any, center: Any, factor: Any) -> None:
    """Put down what group g is normalized with; as `domain.transform.normalizer`.

    A guess: the caller holds it against what that function says.
    """
    count, bad, low, high, mean, m2 = found
    method, placement, ddof, propagate, judged, precision, smallest, epsilon = formula
    average = mean[g]
    divisor = float(count[g] - ddof)
    variance = m2[g] / divisor if divisor > 0.0 else np.nan
    if count[g] == 0 or (propagate and bad[g] > 0):
        average = np.nan
        variance = np.nan
    if method == CENTER:
        center[g] = average
        factor[g] = 1.0
        return
    power = variance + average * average if method == RMS else variance
    if placement == INSIDE:
        divisor = math.sqrt(power + epsilon)
    elif placement == OUTSIDE:
        divisor = math.sqrt(power) + epsilon
    else:
        root = math.sqrt(power)
        divisor = epsilon if root < epsilon else root
    flat = divisor == 0.0
    if judged and method != RMS and count[g] > 0:
        flat = flat or _constant(low[g], high[g], precision, smallest)
    center[g] = average if flat or method == ZSCORE else 0.0
    factor[g] = 0.0 if flat else 1.0 / divisor


@jit(LANES, inline=True)
def _by_none(
    tile: Any, out: Any, subtract: float, factor: float, multiply: float, add: float, one: float
) -> None:
    """Transform a row by numbers, with the bits of that of `numba_affine`.

    The product with 1 is exact, and makes of a subtraction a fused one: conversions from and to
    float32 fill the vector units that subtract (0.155 us for 1024 elements), others are idle.
    """
    factor = factor * multiply
    for j in range(tile.size):
        out[j] = (tile[j] * one - subtract) * factor + add


@jit(LANES, entry=True)
def normalize_groups(
    flat: Any,
    out: Any,
    extents: Any,
    found: Any,
    few: Any,
    many: Any,
    room: Any,
    formula: Any,
    center: Any,
    factor: Any,
    multiply: Any,
    add: Any,
    places: Any,
    steps: Any,
    one: float,
) -> None:
    """Measure and normalize groups that follow each other in memory.

    Parameters
    ----------
    flat, out : ndarray
        The block and the result.
    extents : tuple of int
        Groups, rows in a group, and elements in a row.
    found : tuple of ndarray
        Receives count, non-finite elements, extremes, mean and m2 of each group.
    few, many : GroupSums
        Limbs of one group: those to try, and as many as any group needs.
    room : tuple of ndarray of int64
        Digits of `finish_groups`.
    formula : tuple
        See `_fold`.
    center, factor : ndarray of float64
        Receive what each group is normalized with.
    multiply, add : ndarray of float64
        Scale and bias.
    places : ndarray of int64
        Where those of each group begin.
    steps : tuple of int
        Steps of scale and bias along the rows of a group and along a row; the latter is 0 or 1.
    one : float
        1.0, which the compiler must not know.
    """
    groups, rows, length = extents
    size = rows * length
    for g in range(groups):
        first = g * size
        _measure(flat, first, first + size, g, found, few, many, room)
        _fold(g, found, formula, center, factor)
        for row in range(rows):
            at = first + row * length
            s = places[g] + row * steps[0]
            for j in range(0, length, AFFINE_TILE):
                n = min(AFFINE_TILE, length - j)
                tile = flat[at + j : at + j + n]
                to = out[at + j : at + j + n]
                if steps[1] == 0:
                    _by_none(tile, to, center[g], factor[g], multiply[s], add[s], one)
                else:
                    by_second(
                        tile, to, center[g], factor[g], multiply[s + j : s + j + n],
                        add[s + j : s + j + n],
                    )  # fmt: skip
