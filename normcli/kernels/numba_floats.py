"""Exact sums of one tile of floats: splits that lose nothing, in vector registers.

Let all elements be x with abs(x) < 2**e. Adding and subtracting ``1.5 * 2**(e + k + 52)`` rounds x
to a multiple of 2**(e + k) and leaves a remainder of at most half of that; both are exact. Sums of
n <= 2**11 such parts are exact in any order as long as they stay below 2**53 of their unit, so:

- float32, whose squares have 48 bits: x as it is, in units of 2**(e - 42); its square in units of
  2**(2 e - 42) and 2**(2 e - 84). All elements must be multiples of 2**(e - 42), which those of
  2**(e - 19) and more are (23 bits of mantissa), and 0.
- float64: x * 2**-e in units of 2**-42 and 2**-84; its square as p + r, exactly (one fused
  multiply and add), and both in units of 2**-42, 2**-84, 2**-126 and 2**-168. All elements must be
  multiples of 2**(e - 84), which those of 2**(e - 32) and more are.

One pass sums with the power of two that the last tile had, and takes the extremes meanwhile. Where
these show that it did not apply, the tile is summed again, at worst band by band of magnitudes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from normcli.kernels.numba_jit import EXACT, LANES, SUMS, jit
from normcli.kernels.numba_sums import base_of, put

# Elements of a tile: 8 KiB of float32. Larger ones would need narrower units.
TILE = 1 << 11
# Bits of one unit above the next.
STEP = 42
_TOP = 1.5 * 2.0 ** (52 - STEP)
_SECOND = 1.5 * 2.0 ** (52 - 2 * STEP)
_THIRD = 1.5 * 2.0 ** (52 - 3 * STEP)


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` rounded once."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    double = types.float64
    return double(double, double, double), code


@jit(EXACT, inline=True)
def split(value: float, anchor: float) -> Any:
    """Return a value rounded to the unit of an anchor, and the rest of it."""
    high = (value + anchor) - anchor
    return high, value - high


@jit(EXACT, inline=True)
def square(value: float) -> Any:
    """Return the square rounded to float64, and the rest of it."""
    high = value * value
    return high, _fma(value, value, -high)  # type: ignore[call-arg]


@jit(EXACT, inline=True)
def split_square(value: float) -> Any:
    """Return the four parts of the square of a float64 below 1, the second one in two."""
    high, low = square(value)
    first, rest = split(high, _TOP)
    second, rest = split(rest, _SECOND)
    second_low, rest_low = split(low, _SECOND)
    third, fourth = split(rest, _THIRD)
    third_low, fourth_low = split(rest_low, _THIRD)
    return first, second, second_low, third, third_low, fourth, fourth_low


@intrinsic
def _muladd(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` with one rounding where the processor is fast at it, else two."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        double = ir.DoubleType()
        name = ir.FunctionType(double, [double] * 3)
        return builder.call(
            builder.module.declare_intrinsic("llvm.fmuladd", [double], name), arguments
        )

    double = types.float64
    return double(double, double, double), code


@jit(EXACT, inline=True)
def split_single(value: float, anchor: float) -> Any:
    """Return the two parts of the square of a float32; it is exact, so its roundings are none."""
    high = _muladd(value, value, anchor) - anchor  # type: ignore[call-arg]
    return high, _muladd(value, value, -high)


@jit(LANES, inline=True)
def anchor_of(e: int) -> float:
    """Return what rounds squares of elements below 2**e to their first unit, 2**(2 * e - 42)."""
    return math.ldexp(1.5, 52 - STEP + 2 * e)


def limits(tile: Any) -> Any:
    """Return what a float type is: see `_limits`."""
    raise NotImplementedError("only for compiled code")


@overload(limits)
def _limits(tile: Any) -> Callable[..., Any]:
    """Return bits of mantissa, bias, binades of one pass, and the lowest power of two of a pass.

    Everything below that power is a multiple of the smallest unit of a pass that starts there.
    """
    found = (
        (23, 127, 19, -149 + STEP) if tile.dtype == types.float32 else (52, 1023, 32, -1074 + 84)
    )

    def of_type(tile: Any) -> Any:
        return found

    return of_type


@jit(LANES, inline=True)
def power_above(top: int, mantissa: int, bias: int, lowest: int) -> int:
    """Return e such that 2**e is above the float with the bits `top`."""
    return max((top >> mantissa) - bias + 1, lowest)


@jit(LANES, inline=True)
def floor_of(e: int, mantissa: int, bias: int, reach: int, lowest: int) -> int:
    """Return the bits of the smallest float, but for 0, that a pass from 2**e down may meet."""
    return ((e - reach + bias) << mantissa) if e > lowest else 0


def one_pass(tile: Any, e: int) -> Any:
    """Return six sums and four extremes of a tile; see `_single_pass`."""
    raise NotImplementedError("only for compiled code")


@overload(one_pass)
def _one_pass(tile: Any, e: Any) -> Callable[..., Any]:
    if tile.dtype == types.float32:

        def single(tile: Any, e: Any) -> Any:
            scale = math.ldexp(1.0, -e)
            return _single_pass(
                tile, tile.view(np.int32), tile.view(np.uint32), scale, anchor_of(e)
            )

        return single

    def double(tile: Any, e: Any) -> Any:
        scale = math.ldexp(1.0, -e)
        return _double_pass(tile, tile.view(np.int64), tile.view(np.uint64), scale)

    return double


# Extremes of the bits, read as signed and as unsigned integers, give those of the floats and their
# smallest magnitudes on both sides of 0, without a step to make them comparable.


@jit(SUMS)
def _single_pass(tile: Any, signed: Any, unsigned: Any, scale: float, anchor: float) -> Any:
    s = 0.0
    first = 0.0
    second = 0.0
    square = scale * scale
    least, most, smallest, largest = signed[0], signed[0], unsigned[0], unsigned[0]
    for i in range(tile.size):
        key = signed[i]
        least = key if key < least else least
        most = key if key > most else most
        bits = unsigned[i]
        smallest = bits if bits < smallest else smallest
        largest = bits if bits > largest else largest
        x = np.float64(tile[i])
        high, low = split_single(x, anchor)
        # Scaled as they are added, by fused multiply and add: additions alone have only half of
        # the vector units, and were what a tile waited for.
        s += x * scale
        first += high
        second += low * square
    return s, 0.0, first * square, second, 0.0, 0.0, least, most, smallest, largest


@jit(SUMS)
def _double_pass(tile: Any, signed: Any, unsigned: Any, scale: float) -> Any:
    s = 0.0
    t = 0.0
    first = 0.0
    second = 0.0
    third = 0.0
    fourth = 0.0
    least, most, smallest, largest = signed[0], signed[0], unsigned[0], unsigned[0]
    for i in range(tile.size):
        key = signed[i]
        least = key if key < least else least
        most = key if key > most else most
        bits = unsigned[i]
        smallest = bits if bits < smallest else smallest
        largest = bits if bits > largest else largest
        x = tile[i] * scale
        high, low = split(x, _TOP)
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
    return s, t, first, second, third, fourth, least, most, smallest, largest


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
        high, low = split(x, _TOP)
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


@jit(LANES, inline=True)
def units(value: float, steps: int) -> Any:
    """Return a sum of scaled elements in units of 2**(-42 * steps), which is an integer."""
    return np.int64(value * 2.0 ** (STEP * steps))


@jit(LANES, inline=True)
def put_sums(
    g: int, e: int, s: int, t: int, first: int, second: int, third: int, fourth: int, sums: Any
) -> None:
    """Add the parts of sums of elements below 2**e to group g, in units of 2**-42 and below."""
    base = base_of(g, e - STEP, sums)
    put(sums.total, g, s, e - STEP - base, sums.escaped)
    put(sums.total, g, t, e - 2 * STEP - base, sums.escaped)
    bit = 2 * (e - base)
    put(sums.squares, g, first, bit - STEP, sums.escaped)
    put(sums.squares, g, second, bit - 2 * STEP, sums.escaped)
    put(sums.squares, g, third, bit - 3 * STEP, sums.escaped)
    put(sums.squares, g, fourth, bit - 4 * STEP, sums.escaped)


@jit(LANES, inline=True)
def add_sums(g: int, e: int, found: Any, sums: Any) -> None:
    """Add what a pass found of elements below 2**e to group g."""
    put_sums(
        g, e, units(found[0], 1), units(found[1], 2), units(found[2], 1), units(found[3], 2),
        units(found[4], 3), units(found[5], 4), sums,
    )  # fmt: skip


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
