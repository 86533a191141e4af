"""Compiled ``x - origin`` of 64-bit integers, rounded once; as `domain.integer_origins`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_widen import load


def load_less(
    flat: Any, start: int, stop: int, half: Any, scratch: Any, origins: Any, first: int, step: int
) -> Any:
    """Return elements of a flat block as `load` does, less their origins where there are any.

    Parameters
    ----------
    flat, start, stop, half, scratch
        As of `load`.
    origins : ndarray of the type of `flat`, or None
        Origins of integers.
    first, step : int
        Origin of the first element, and the step to that of the next: 0 or 1.
    """
    raise NotImplementedError("only for compiled code")


@overload(load_less)
def _load_less(
    flat: Any, start: Any, stop: Any, half: Any, scratch: Any, origins: Any, first: Any, step: Any
) -> Callable[..., Any]:
    if isinstance(origins, types.NoneType):

        def plain(
            flat: Any, start: Any, stop: Any, half: Any, scratch: Any, origins: Any, first: Any,
            step: Any,
        ) -> Any:  # fmt: skip
            return load(flat, start, stop, half, scratch)

        return plain

    def less(
        flat: Any, start: Any, stop: Any, half: Any, scratch: Any, origins: Any, first: Any,
        step: Any,
    ) -> Any:  # fmt: skip
        out = scratch[: stop - start]
        if step:
            _less_each(flat[start:stop], origins[first : first + stop - start], out)
        else:
            _less_one(flat[start:stop], origins[first], out)
        return out, stop - start

    return less


@jit(LANES)
def _less_one(integers: Any, origin: Any, out: Any) -> None:
    for i in range(integers.size):
        value = integers[i]
        # Modulo 2**64 the difference of the larger and the smaller is right.
        above = np.float64(np.uint64(value) - np.uint64(origin))
        below = np.float64(np.uint64(origin) - np.uint64(value))
        out[i] = above if value >= origin else -below


@jit(LANES)
def _less_each(integers: Any, origins: Any, out: Any) -> None:
    for i in range(integers.size):
        value, origin = integers[i], origins[i]
        above = np.float64(np.uint64(value) - np.uint64(origin))
        below = np.float64(np.uint64(origin) - np.uint64(value))
        out[i] = above if value >= origin else -below
