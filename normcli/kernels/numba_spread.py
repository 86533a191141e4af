"""Mean and m2 of a group from exact sums in a few integers: one rounding each, without limbs.

Of float32 below 2**e, of which `tile_sums` summed every tile with the same e, all sums are integers
of 64 bits: S in units of u = 2**(e - 42), and the sum of squares Q as two parts in units of
2**(2 e - 42) and u**2 = 2**(2 e - 84). A group has n <= `MOST` = 2**20 elements, so S and both
parts are below 2**62, and n Q - S**2, which is n times m2 in units of u**2 and not negative, is
below n**2 * 2**84 <= 2**124: it is taken in 128 bits, exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from normcli.kernels.numba_jit import EXACT, jit
from normcli.kernels.numba_splits import STEP

MOST = 1 << 20
_EXACT_INTEGERS = 1 << 53
_WIDE = ir.IntType(128)


@intrinsic
def _spread(typing: Any, count: Any, total: Any, first: Any, second: Any) -> Any:
    """Return ``count * (first * 2**42 + second) - total**2`` as high and low word."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        n, s, a, b = (builder.sext(value, _WIDE) for value in arguments)
        squares = builder.add(builder.shl(a, ir.Constant(_WIDE, STEP)), b)
        found = builder.sub(builder.mul(n, squares), builder.mul(s, s))
        return _words(context, builder, signature, found)

    whole = types.int64
    return types.UniTuple(types.uint64, 2)(whole, whole, whole, whole), code


@intrinsic
def _leading(typing: Any, high: Any, low: Any) -> Any:
    """Return a number of 128 bits, not 0, moved up as far as it goes."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, b = (builder.zext(value, _WIDE) for value in arguments)
        whole = builder.or_(builder.shl(a, ir.Constant(_WIDE, 64)), b)
        zeros = builder.ctlz(whole, ir.Constant(ir.IntType(1), 1))
        return _words(context, builder, signature, builder.shl(whole, zeros))

    word = types.uint64
    return types.UniTuple(word, 2)(word, word), code


@intrinsic
def _zeros(typing: Any, word: Any) -> Any:
    """Return how many highest bits of a word that is not 0 are 0."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


def _words(context: Any, builder: ir.IRBuilder, signature: Any, value: Any) -> Any:
    word = ir.IntType(64)
    high = builder.trunc(builder.lshr(value, ir.Constant(_WIDE, 64)), word)
    low = builder.trunc(value, word)
    return context.make_tuple(builder, signature.return_type, (high, low))


@jit(EXACT, inline=True)
def mean_and_m2(n: int, total: int, first: int, second: int, e: int) -> Any:
    """Return mean and m2 of n elements below 2**e, each correctly rounded."""
    unit = e - STEP
    if abs(total) < _EXACT_INTEGERS:
        # Both are float64 numbers, and their quotient is no subnormal one, scaled or not.
        mean = math.ldexp(np.float64(total) / np.float64(n), unit)
    else:
        mean = _ratio(np.uint64(abs(total)), np.uint64(0), np.uint64(n), unit - 64)
        mean = -mean if total < 0 else mean
    found: Any = _spread(n, total, first, second)  # type: ignore[call-arg]
    high, low = found
    if high == np.uint64(0) and low < np.uint64(_EXACT_INTEGERS):
        return mean, math.ldexp(np.float64(low) / np.float64(n), 2 * unit)
    return mean, _ratio(high, low, np.uint64(n), 2 * unit)


@jit(EXACT, inline=True)
def _ratio(high: Any, low: Any, n: Any, unit: int) -> float:
    """Return a number of 128 bits times 2**unit over n <= `MOST`, rounded once.

    With its highest bit set it has 96 bits above the 32 that are only asked whether they are 0, and
    the quotient 75 or more: 64 of them, the last of which tells of all below, are rounded to 53.
    """
    width, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    turn = _zeros(high) if high else 64 + _zeros(low)  # type: ignore[call-arg]
    high, low = _leading(high, low)  # type: ignore[call-arg]
    top = high // n
    here = ((high - top * n) << width) | (low >> width)
    under = here // n
    sticky = under * n != here or (low & mask) != np.uint64(0)
    more = _zeros(top)
    ahead = (top << np.uint64(more)) | (under >> np.uint64(32 - more))
    sticky = sticky or ((under << np.uint64(more)) & mask) != np.uint64(0)
    if sticky:
        ahead |= np.uint64(1)
    # Never subnormal: elements of float32 are multiples of 2**-149, their squares of 2**-298.
    return math.ldexp(np.float64(ahead), unit + 64 - more - turn)
