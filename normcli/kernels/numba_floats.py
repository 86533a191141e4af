"""Exact sums of one tile of floats, in vector registers.

One pass sums the parts of `numba_splits` with the power of two that the last tile had, and takes
the extremes meanwhile. Where these show that it did not apply, the tile is summed again, at worst
band by band of magnitudes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, SUMS, jit
from normcli.kernels.numba_splits import (
    TOP,
    add_sums,
    anchor_of,
    floor_of,
    limits,
    power_above,
    split,
    split_single,
    split_square,
)
from normcli.kernels.numba_vectors import double_pass, single_pass


def one_pass(tile: Any, e: int) -> Any:
    """Return six sums and four extremes of a tile; see `single_pass`."""
    raise NotImplementedError("only for compiled code")


@overload(one_pass)
def _one_pass(tile: Any, e: Any) -> Callable[..., Any]:
    if tile.dtype == types.float32:

        def single(tile: Any, e: Any) -> Any:
            return single_pass(tile, math.ldexp(1.0, -e), anchor_of(e))

        return single

    def double(tile: Any, e: Any) -> Any:
        return double_pass(tile, math.ldexp(1.0, -e))

    return double


@jit(LANES)
def least_magnitude(keys: Any, mask: int) -> int:
    """Return the bits of the smallest magnitude that is not 0."""
    least = mask
    for i in range(keys.size):
        bits = keys[i] & mask
        least = min(least, bits if bits != 0 else mask)
    return least


def band(tile: Any, e: int, floor: int, below: int) -> Any:
    """Return six sums of the elements whose magnitude has bits in [floor, below)."""
    raise NotImplementedError("only for compiled code")


@overload(band)
def _band(tile: Any, e: Any, floor: Any, below: Any) -> Callable[..., Any]:
    mask = (1 << (tile.dtype.bitwidth - 1)) - 1
    integer = np.int32 if tile.dtype == types.float32 else np.int64
    sums = _single_band if tile.dtype == types.float32 else _double_band

    def of_type(tile: Any, e: Any, floor: Any, below: Any) -> Any:
        return sums(tile, tile.view(integer), mask, e, floor, below)

    return of_type


@jit(SUMS)
def _single_band(tile: Any, keys: Any, mask: int, e: int, floor: int, below: int) -> Any:
    scale, anchor = math.ldexp(1.0, -e), anchor_of(e)
    s = 0.0
    first = 0.0
    second = 0.0
    for i in range(tile.size):
        bits = keys[i] & mask
        x = np.float64(tile[i]) if floor <= bits and bits < below else 0.0
        high, low = split_single(x, anchor)
        s += x
        first += high
        second += low
    square = scale * scale
    return s * scale, 0.0, first * square, second * square, 0.0, 0.0


@jit(SUMS)
def _double_band(tile: Any, keys: Any, mask: int, e: int, floor: int, below: int) -> Any:
    scale = math.ldexp(1.0, -e)
    s = 0.0
    t = 0.0
    first = 0.0
    second = 0.0
    third = 0.0
    fourth = 0.0
    for i in range(tile.size):
        bits = keys[i] & mask
        x = tile[i] * scale if floor <= bits and bits < below else 0.0
        high, low = split(x, TOP)
        s += high
        t += low
        a, b, c, d, g, h, k = split_square(x)
        first += a
        second += b
        second += c
        third += d
        third += g
        fourth += h
        fourth += k
    return s, t, first, second, third, fourth


# What `tile_sums` says of a tile: its sums are exact; they need several passes; it holds NaN or
# infinities.
ONE_PASS, MANY_PASSES, NOT_FINITE = range(3)


def tile_sums(tile: Any, guess: Any, room: Any) -> Any:
    """Return what a tile is, e with all elements below 2**e, its six sums and both extremes."""
    raise NotImplementedError("only for compiled code")


@overload(tile_sums, jit_options={"forceinline": True})
def _tile_sums(tile: Any, guess: Any, room: Any) -> Callable[..., Any]:
    single = tile.dtype == types.float32
    signed = np.int32 if single else np.int64
    unsigned = np.uint32 if single else np.uint64
    mask = (1 << (tile.dtype.bitwidth - 1)) - 1

    def of_type(tile: Any, guess: Any, room: Any) -> Any:
        mantissa, bias, reach, lowest = limits(tile)
        infinity = (2 * bias + 1) << mantissa
        kind = ONE_PASS
        e = guess[0]
        s, t, a, b, c, d, least, most, smallest, largest = one_pass(tile, e)
        top = max(np.int64(most), np.int64(largest) & mask)
        low = infinity
        zero = False
        if most >= 0:
            low = np.int64(smallest)
            zero = low == 0
        if least < 0:
            under = np.int64(least) & mask
            zero = zero or under == 0
            low = min(low, under)
        if top >= infinity:
            kind = NOT_FINITE
        elif zero:
            low = np.int64(least_magnitude(tile.view(signed), mask))
        keys, bits = room.view(signed), room.view(unsigned)
        if least < 0:
            bits[0] = largest
        else:
            bits[0] = smallest
        keys[1] = most if most >= 0 else least
        # -0.0 + 0.0 is 0.0: which of both zeros an extreme is depends on the order.
        lowest_element, highest_element = np.float64(room[0]) + 0.0, np.float64(room[1]) + 0.0
        fits = top < ((e + bias) << mantissa)
        if kind == ONE_PASS and (not fits or low < floor_of(e, mantissa, bias, reach, lowest)):
            e = power_above(top, mantissa, bias, lowest)
            guess[0] = e
            if low < floor_of(e, mantissa, bias, reach, lowest):
                kind = MANY_PASSES
            else:
                if e <= bias and low >= floor_of(e + 1, mantissa, bias, reach, lowest):
                    # The next tile may hold something larger.
                    guess[0] = e + 1
                s, t, a, b, c, d, least, most, smallest, largest = one_pass(tile, e)
        return kind, e, s, t, a, b, c, d, lowest_element, highest_element

    return of_type


def add_tile(tile: Any, g: int, sums: Any) -> None:
    """Add a tile of at most `TILE` floats to group g."""
    raise NotImplementedError("only for compiled code")


@overload(add_tile)
def _add_tile(tile: Any, g: Any, sums: Any) -> Callable[..., Any]:
    integer = np.int32 if tile.dtype == types.float32 else np.int64
    mask = (1 << (tile.dtype.bitwidth - 1)) - 1

    def of_type(tile: Any, g: Any, sums: Any) -> None:
        mantissa, bias, _, _ = limits(tile)
        infinity = (2 * bias + 1) << mantissa
        kind, e, s, t, a, b, c, d, low, high = tile_sums(tile, sums.guess, sums.room)
        if kind == NOT_FINITE:
            _bands(tile, tile.view(integer), mask, g, sums)
            return
        sums.count[g] += tile.size
        sums.low[g] = min(sums.low[g], low)
        sums.high[g] = max(sums.high[g], high)
        if kind == MANY_PASSES:
            _add_bands(tile, tile.view(integer), mask, infinity, g, sums)
        else:
            add_sums(g, e, (s, t, a, b, c, d), sums)

    return of_type


@jit(LANES)
def _bands(tile: Any, keys: Any, mask: int, g: int, sums: Any) -> None:
    """Add a tile that holds NaN or infinities."""
    mantissa, bias, _, _ = limits(tile)
    infinity = (2 * bias + 1) << mantissa
    n = 0
    low = np.inf
    high = -np.inf
    for i in range(tile.size):
        x = np.float64(tile[i])
        finite = abs(x) < np.inf
        n += 1 if finite else 0
        low = x if finite and x < low else low
        high = x if finite and x > high else high
    sums.bad[g] += tile.size - n
    sums.count[g] += n
    sums.low[g] = min(sums.low[g], low + 0.0)
    sums.high[g] = max(sums.high[g], high + 0.0)
    _add_bands(tile, keys, mask, infinity, g, sums)


@jit(LANES)
def _add_bands(tile: Any, keys: Any, mask: int, below: int, g: int, sums: Any) -> None:
    """Add the sums of a tile, the largest magnitudes first, as many binades at once as may be."""
    mantissa, bias, reach, lowest = limits(tile)
    while True:
        top = 0
        for i in range(tile.size):
            bits = keys[i] & mask
            top = max(top, bits if bits < below else 0)
        if top == 0:
            return
        e = power_above(top, mantissa, bias, lowest)
        floor = floor_of(e, mantissa, bias, reach, lowest)
        add_sums(g, e, band(tile, e, floor, below), sums)
        if floor == 0:
            return
        below = floor
