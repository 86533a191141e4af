"""Compiled sums over columns of floats: the innermost axis is kept, each element of it is a lane.

Strips of at most `WIDTH` lanes are taken in tiles of `HEIGHT` rows. Each lane has a power of two
above its elements, and sums in its units as `numba_floats` does, a whole tile in one pass; lanes
for which that power did not hold in a tile are gathered and added as rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_floats import (
    STEP,
    add_tile,
    anchor_of,
    floor_of,
    limits,
    power_above,
    put_sums,
    split,
    split_single,
    split_square,
    units,
)
from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_lanes import add_lanes
from normcli.kernels.numba_widen import load_rows

WIDTH = 512
HEIGHT = 128
# Tiles whose integer sums, each up to 2**53, are sure to fit in int64.
_TILES = 512
_TOP = 1.5 * 2.0 ** (52 - STEP)
# Accumulators lie in one array at constant distances, so that the compiler sees that they do not
# overlap; the distance is no multiple of 4 KiB, which would put all of them in the same sets of
# the L1 cache.
PITCH = WIDTH + 40
SCALE, TOTAL, REST = 0, PITCH, 2 * PITCH
FIRST, SECOND, THIRD, FOURTH = 3 * PITCH, 4 * PITCH, 5 * PITCH, 6 * PITCH
LOW, HIGH = 7 * PITCH, 8 * PITCH
ANCHOR = 9 * PITCH
ACCUMULATORS = 10 * PITCH
# Of the integers: six sums of tiles, the power of two, and elements seen.
POWER, SEEN = 6 * PITCH, 7 * PITCH
INTEGERS = 8 * PITCH
# Of the bits: extremes as signed integers, and as unsigned ones with the sign bit turned over; the
# bits of the power of two and of the smallest float that goes with it; whether a tile is used.
LEAST, MOST, SMALLEST, LARGEST = 0, PITCH, 2 * PITCH, 3 * PITCH
ABOVE, FLOOR, HOLDS = 4 * PITCH, 5 * PITCH, 6 * PITCH
NONZERO = 7 * PITCH
BITS = 8 * PITCH


@jit(LANES)
def _extremes_rows(one: Any, two: Any, three: Any, four: Any, top: int, ext: Any) -> None:
    for j in range(one.size):
        a, b, c, d = one[j], two[j], three[j], four[j]
        least = a if a < b else b
        other = c if c < d else d
        least = least if least < other else other
        ext[LEAST + j] = least if least < ext[LEAST + j] else ext[LEAST + j]
        most = a if a > b else b
        other = c if c > d else d
        most = most if most > other else other
        ext[MOST + j] = most if most > ext[MOST + j] else ext[MOST + j]
        a, b, c, d = a ^ top, b ^ top, c ^ top, d ^ top
        least = a if a < b else b
        other = c if c < d else d
        least = least if least < other else other
        ext[SMALLEST + j] = least if least < ext[SMALLEST + j] else ext[SMALLEST + j]
        most = a if a > b else b
        other = c if c > d else d
        most = most if most > other else other
        ext[LARGEST + j] = most if most > ext[LARGEST + j] else ext[LARGEST + j]


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
            high, low = split(x, _TOP)
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
def _extremes_tile(keys: Any, stride: int, width: int, height: int, top: int, ext: Any) -> None:
    for i in range(0, height, 4):
        # The last rows of a tile may be met twice.
        at = max(min(i, height - 4), 0)
        one = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        two = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        three = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        four = keys[at * stride : at * stride + width]
        _extremes_rows(one, two, three, four, top, ext)


@jit(LANES)
def _sum_tile(
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
        _extremes_tile(keys[at : at + (rows - 1) * stride + rest], stride, rest, rows, top, bits)
    if ext.itemsize == 4:
        _scale(width, acc)


@jit(LANES)
def _clear_extremes(keys: Any, width: int, top: int, ext: Any) -> None:
    for j in range(width):
        ext[LEAST + j] = keys[j]
        ext[MOST + j] = keys[j]
        ext[SMALLEST + j] = keys[j] ^ top
        ext[LARGEST + j] = keys[j] ^ top


@jit(LANES)
def _least_rows(row: Any, mask: int, ext: Any) -> None:
    for j in range(row.size):
        bits = row[j] & mask
        bits = bits if bits != 0 else mask
        ext[NONZERO + j] = bits if bits < ext[NONZERO + j] else ext[NONZERO + j]


@jit(LANES)
def _nonzero(
    keys: Any, stride: int, width: int, height: int, mask: int, top: int, ext: Any
) -> None:
    """Find the smallest magnitudes, without 0."""
    zeros = False
    for j in range(width):
        low = mask
        bits = ext[SMALLEST + j] ^ top
        under = ext[LEAST + j] & mask
        low = bits if ext[MOST + j] >= 0 else low
        low = under if ext[LEAST + j] < 0 and under < low else low
        ext[NONZERO + j] = low
        zeros |= low == 0
    if zeros:
        for j in range(width):
            ext[NONZERO + j] = mask
        for i in range(height):
            _least_rows(keys[i * stride : i * stride + width], mask, ext)


@jit(LANES, inline=True)
def _largest(j: int, mask: int, top: int, ext: Any) -> Any:
    return max(np.int64(ext[MOST + j]), np.int64(ext[LARGEST + j] ^ top) & mask)


@jit(LANES)
def _check(width: int, mask: int, top: int, ext: Any) -> bool:
    """Find which lanes hold; return whether all do."""
    every = True
    for j in range(width):
        most = ext[MOST + j]
        other = (ext[LARGEST + j] ^ top) & mask
        most = most if most > other else other
        holds = most < ext[ABOVE + j] and ext[NONZERO + j] >= ext[FLOOR + j]
        ext[HOLDS + j] = holds
        every &= holds
    return every


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


@jit(LANES)
def _take_extremes(width: int, top: int, acc: Any, ext: Any, floats: Any) -> None:
    for j in range(width):
        # The bits of both extremes, in place of what they were found from.
        smallest, largest = ext[SMALLEST + j] ^ top, ext[LARGEST + j] ^ top
        least, most = ext[LEAST + j], ext[MOST + j]
        ext[SMALLEST + j] = largest if least < 0 else smallest
        ext[LARGEST + j] = most if most >= 0 else least
    for j in range(width):
        low = np.float64(floats[SMALLEST + j]) + 0.0
        high = np.float64(floats[LARGEST + j]) + 0.0
        holds = ext[HOLDS + j] != 0
        acc[LOW + j] = low if holds and low < acc[LOW + j] else acc[LOW + j]
        acc[HIGH + j] = high if holds and high > acc[HIGH + j] else acc[HIGH + j]


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
        _clear_extremes(keys, width, top, ext)
        if first == 0:
            mantissa, bias, _, lowest = limits(tile)
            _extremes_tile(keys, pitch, width, rows, top, ext)
            for j in range(width):
                e = power_above(_largest(j, mask, top, ext), mantissa, bias, lowest)
                _set_power(tile, j, min(e + 1, bias + 1), acc, ext, counts)
        _sum_tile(tile, keys, pitch, width, rows, zeros, top, acc, ext)
        _nonzero(keys, pitch, width, rows, mask, top, ext)
        every = _check(width, mask, top, ext)
        _take(width, rows, acc, ext, counts)
        _take_extremes(width, top, acc, ext, floats)
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


@jit(LANES)
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
