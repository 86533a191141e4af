"""Integers and 16-bit floats as float32 or float64, a tile at a time.

float16 and bfloat16 are converted by their bits: numba has no arithmetic for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, jit


def load(flat: Any, start: int, stop: int, mantissa: Any, scratch: Any) -> Any:
    """Return elements of a flat block: a view, or `scratch` where they have to be widened.

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
            return flat[start:stop]

        return view

    if isinstance(mantissa, types.NoneType):

        def converted(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Any:
            out = scratch[: stop - start]
            _convert(flat[start:stop], out)
            return out

        return converted

    def wide(flat: Any, start: Any, stop: Any, mantissa: Any, scratch: Any) -> Any:
        out = scratch[: stop - start]
        _widen(flat[start:stop], mantissa, out)
        return out

    return wide


@jit(LANES)
def _convert(integers: Any, out: Any) -> None:
    for i in range(integers.size):
        out[i] = integers[i]


@jit(LANES)
def _widen(halves: Any, mantissa: int, out: Any) -> None:
    bits = out.view(np.uint32)
    if mantissa == 7:
        for i in range(halves.size):
            bits[i] = np.uint32(halves[i]) << np.uint32(16)
        return
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
