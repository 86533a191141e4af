"""Sums of a tile of lanes: float32 in vectors as far as they go, the others in loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_lane_extremes import extremes_of_tile
from normcli.kernels.numba_lane_room import (
    ANCHOR,
    FIRST,
    FOURTH,
    LARGEST,
    LEAST,
    MOST,
    REST,
    SCALE,
    SECOND,
    SMALLEST,
    THIRD,
    TOTAL,
)
from normcli.kernels.numba_lanes import add_lanes
from normcli.kernels.numba_splits import TOP, split, split_single, split_square


def _sum_rows(one: Any, two: Any, three: Any, four: Any, acc: Any) -> None:
    raise NotImplementedError("only for compiled code")


@overload(_sum_rows)
def _sum_rows_as(one: Any, two: Any, three: Any, four: Any, acc: Any) -> Callable[..., Any]:
    sums = _sum_singles if one.dtype == types.float32 else _sum_doubles

    def of_type(one: Any, two: Any, three: Any, four: Any, acc: Any) -> None:
        sums(one, two, three, four, acc)

    return of_type


@jit(LANES)
def _sum_singles(one: Any, two: Any, three: Any, four: Any, acc: Any) -> None:
    for j in range(one.size):
        anchor = acc[ANCHOR + j]
        a = np.float64(one[j])
        b = np.float64(two[j])
        c = np.float64(three[j])
        d = np.float64(four[j])
        acc[TOTAL + j] += (a + b) + (c + d)
        a_high, a_low = split_single(a, anchor)
        b_high, b_low = split_single(b, anchor)
        c_high, c_low = split_single(c, anchor)
        d_high, d_low = split_single(d, anchor)
        acc[FIRST + j] += (a_high + b_high) + (c_high + d_high)
        acc[SECOND + j] += (a_low + b_low) + (c_low + d_low)


@jit(LANES)
def _sum_doubles(one: Any, two: Any, three: Any, four: Any, acc: Any) -> None:
    for j in range(one.size):
        scale = acc[SCALE + j]
        total = acc[TOTAL + j]
        rest = acc[REST + j]
        first = acc[FIRST + j]
        second = acc[SECOND + j]
        third = acc[THIRD + j]
        fourth = acc[FOURTH + j]
        for value in (one[j], two[j], three[j], four[j]):
            x = value * scale
            high, low = split(x, TOP)
            total += high
            rest += low
            a, b, c, d, g, h, k = split_square(x)
            first += a
            second += b + c
            third += d + g
            fourth += h + k
        acc[TOTAL + j] = total
        acc[REST + j] = rest
        acc[FIRST + j] = first
        acc[SECOND + j] = second
        acc[THIRD + j] = third
        acc[FOURTH + j] = fourth


def _vectors(tile: Any, stride: int, width: int, height: int, acc: Any, ext: Any) -> int:
    raise NotImplementedError("only for compiled code")


@overload(_vectors)
def _vectors_of(
    tile: Any, stride: Any, width: Any, height: Any, acc: Any, ext: Any
) -> Callable[..., Any]:
    """Add lanes in vectors, and return how many these were."""
    if tile.dtype == types.float32:
        places = (ANCHOR, TOTAL, FIRST, SECOND, LEAST, MOST, SMALLEST, LARGEST)

        def single(tile: Any, stride: Any, width: Any, height: Any, acc: Any, ext: Any) -> Any:
            return add_lanes(tile, stride, width, height, acc, ext, places)

        return single

    def none(tile: Any, stride: Any, width: Any, height: Any, acc: Any, ext: Any) -> Any:
        return 0

    return none


@jit(LANES)
def _scale(width: int, acc: Any) -> None:
    """Scale the sums of float32 elements that were not."""
    for j in range(width):
        scale = acc[SCALE + j]
        acc[TOTAL + j] *= scale
        acc[FIRST + j] *= scale * scale
        acc[SECOND + j] *= scale * scale


@jit(LANES)
def sum_tile(
    tile: Any,
    keys: Any,
    stride: int,
    width: int,
    height: int,
    zeros: Any,
    top: int,
    acc: Any,
    ext: Any,
) -> None:
    """Sum a tile of lanes with the power of two that each has, and take extremes."""
    for j in range(width):
        acc[TOTAL + j] = 0.0
        acc[REST + j] = 0.0
        acc[FIRST + j] = 0.0
        acc[SECOND + j] = 0.0
        acc[THIRD + j] = 0.0
        acc[FOURTH + j] = 0.0
    done = _vectors(tile, stride, width, height, acc, ext)
    rest = width - done
    part, bits = acc[done:], ext[done:]
    for i in range(0, height if rest else 0, 4):
        # Four rows at a time stay in the L1 cache for their extremes, and share the accumulators.
        at = i * stride + done
        one = tile[at : at + rest]
        two = tile[at + stride : at + stride + rest] if i + 1 < height else zeros[:rest]
        three = tile[at + 2 * stride : at + 2 * stride + rest] if i + 2 < height else zeros[:rest]
        four = tile[at + 3 * stride : at + 3 * stride + rest] if i + 3 < height else zeros[:rest]
        _sum_rows(one, two, three, four, part)
        rows = min(4, height - i)
        extremes_of_tile(keys[at : at + (rows - 1) * stride + rest], stride, rest, rows, top, bits)
    if ext.itemsize == 4:
        _scale(width, acc)
