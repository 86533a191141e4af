"""Floats and their squares split without loss, into parts whose sums are exact.

Let all elements be x with abs(x) < 2**e. Adding and subtracting ``1.5 * 2**(e + k + 52)`` rounds x
to a multiple of 2**(e + k) and leaves a remainder of at most half of that; both are exact. Sums of
n <= 2**11 such parts are exact in any order as long as they stay below 2**53 of their unit, so:

- float32, whose squares have 48 bits: x as it is, in units of 2**(e - 42); its square in units of
  2**(2 e - 42) and 2**(2 e - 84). All elements must be multiples of 2**(e - 42), which those of
  2**(e - 19) and more are (23 bits of mantissa), and 0.
- float64: x * 2**-e in units of 2**-42 and 2**-84; its square as p + r, exactly (one fused
  multiply and add), and both in units of 2**-42, 2**-84, 2**-126 and 2**-168. All elements must be
  multiples of 2**(e - 84), which those of 2**(e - 32) and more are.

A sum may also begin at the anchor, ``1.5 * 2**(e + k + 52)``, and lose it at its end. As long as
the sum of its parts is below 2**51 units, it stays within the binade of the anchor, whose unit
every addition rounds to; what it grew by, a difference of multiples of the unit, is exact and
differs from what was added by at most half a unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from normcli.kernels.numba_jit import EXACT, LANES, jit
from normcli.kernels.numba_sums import base_of, put

# Elements of a tile: 8 KiB of float32. Larger ones would need narrower units.
TILE = 1 << 11
# Bits of one unit above the next.
STEP = 42
TOP = 1.5 * 2.0 ** (52 - STEP)
SECOND = 1.5 * 2.0 ** (52 - 2 * STEP)
THIRD = 1.5 * 2.0 ** (52 - 3 * STEP)


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
    first, rest = split(high, TOP)
    second, rest = split(rest, SECOND)
    second_low, rest_low = split(low, SECOND)
    third, fourth = split(rest, THIRD)
    third_low, fourth_low = split(rest_low, THIRD)
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
