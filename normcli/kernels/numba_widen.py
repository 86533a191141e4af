"""Integers and 16-bit floats as float32 or float64, a tile at a time.

numba has no arithmetic for float16 and bfloat16. Where the processor converts float16 (F16C: 7.6
billion a second on one core) that instruction is asked of LLVM; elsewhere LLVM would call a
function that is not there, and the bits are widened by integers (2.8 billion).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from normcli.kernels.numba_jit import LANES, jit


def load(flat: Any, start: int, stop: int, mantissa: Any, scratch: Any) -> Any:
    """Return elements of a flat block, and how many they are.

    They are a view, or in `scratch` where they have to be widened. Without references to count,
    numba lets an array be returned in a tuple only.

    Parameters
    ----------
    flat : ndarray
        The block; uint16 where `mantissa` is not None.
    start, stop : int
        The elements.
    mantissa : {10, 7} or None
        Bits of the mantissa: 10 for float16, 7 for bfloat16.
    scratch : ndarray of float32 or float64, or None
        Receives the elements.
    """
    raise NotImplementedError("only for compiled code")


@overload(load)
def _load(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Callable[..., Any]:
    if isinstance(scratch, types.NoneType):

        def view(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Any:
            return flat[start:stop], stop - start

        return view

    if isinstance(mantissa, types.NoneType):

        def converted(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Any:
            out = scratch[: stop - start]
            _convert(flat[start:stop], out)
            return out, stop - start

        return converted

    def wide(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Any:
        out = scratch[: stop - start]
        widen(flat[start:stop], mantissa, out)
        return out, stop - start

    return wide


def load_rows(
    flat: Any, begin: int, rows: int, stride: int, width: int, half: Any, scratch: Any
) -> Any:
    """Return rows as a flat tile of a type with arithmetic, and the stride of its rows.

    They are a view where `scratch` is None, and widened side by side elsewhere.
    """
    raise NotImplementedError("only for compiled code")


@overload(load_rows)
def _load_rows(
    flat: Any, begin: Any, rows: Any, stride: Any, width: Any, half: Any, scratch: Any
) -> Callable[..., Any]:
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


def _converts_halves() -> bool:
    """Whether the code that numba compiles may use F16C.

    Asked of numba, whose target NUMBA_CPU_NAME and NUMBA_CPU_FEATURES change. The same target is
    in the key of each kernel kept on disk, so that no processor is handed the code of another.
    """
    _triple, _name, features = cpu_target.target_context.codegen().magic_tuple()
    return "+f16c" in features.split(",")


F16C = _converts_halves()


@intrinsic
def float_of_half(typing: Any, half: Any) -> Any:
    """Return the bits of a float16 as a float32, by the processor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@jit(LANES)
def _convert(integers: Any, out: Any) -> None:
    for i in range(integers.size):
        out[i] = integers[i]


@jit(LANES)
def widen(halves: Any, mantissa: int, out: Any) -> None:
    """Convert the bits of float16 or bfloat16, in the way that this processor does best."""
    if mantissa == 7:
        bits = out.view(np.uint32)
        for i in range(halves.size):
            bits[i] = np.uint32(halves[i]) << np.uint32(16)
    elif F16C:
        widen_by_processor(halves, out)
    else:
        widen_by_integers(halves, out)


@jit(LANES)
def widen_by_processor(halves: Any, out: Any) -> None:
    """Convert the bits of float16; only where `F16C` says so."""
    for i in range(halves.size):
        out[i] = float_of_half(halves[i])  # type: ignore[call-arg]


@jit(LANES)
def widen_by_integers(halves: Any, out: Any) -> None:
    """Convert the bits of float16, on any processor."""
    bits = out.view(np.uint32)
    for i in range(halves.size):
        bits[i] = np.uint32(halves[i] & np.uint16(0x7FFF)) << np.uint32(13)
    # The exponent of float32 is biased by 112 more; a product adds it, for subnormals as well.
    bias = np.float32(2.0**112)
    for i in range(halves.size):
        out[i] = out[i] * bias
    for i in range(halves.size):
        half = np.uint32(halves[i])
        special = (half & np.uint32(0x7C00)) == np.uint32(0x7C00)
        sign = (half & np.uint32(0x8000)) << np.uint32(16)
        bits[i] |= sign | (np.uint32(0x7F800000) if special else np.uint32(0))
