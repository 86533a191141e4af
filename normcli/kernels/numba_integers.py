"""Exact sums of one tile of integers, in int64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_sums import put

_MASK = 0xFFFFFFFF


@jit(LANES)
def _extremes(tile: Any, g: int, sums: Any) -> None:
    least = tile[0]
    most = tile[0]
    for i in range(tile.size):
        value = tile[i]
        least = value if value < least else least
        most = value if value > most else most
    sums.low[g] = min(sums.low[g], np.float64(least))
    sums.high[g] = max(sums.high[g], np.float64(most))


@jit(LANES)
def _byte_sums(tile: Any) -> Any:
    """Return sums of 8-bit integers: 2048 squares of at most 255**2 leave room in 32 bits."""
    total = np.int32(0)
    squares = np.int32(0)
    for i in range(tile.size):
        value = np.int32(tile[i])
        total = np.int32(total + value)
        squares = np.int32(squares + np.int32(value * value))
    return np.int64(total), np.int64(squares), np.int64(0)


@jit(LANES)
def _short_sums(tile: Any) -> Any:
    """Return sums of 16-bit integers: 2048 squares of at most 65535**2 leave room in 64."""
    total = np.int32(0)
    squares = np.int64(0)
    for i in range(tile.size):
        value = np.int32(tile[i])
        total = np.int32(total + value)
        squares += np.int64(np.uint32(value * value))
    return np.int64(total), squares, np.int64(0)


@jit(LANES)
def _word_sums(tile: Any) -> Any:
    """Return sums of 32-bit integers; squares of up to 64 bits are summed in two halves."""
    total = np.int64(0)
    low = np.int64(0)
    high = np.int64(0)
    for i in range(tile.size):
        value = np.int64(tile[i])
        square = value * value
        total += value
        low += square & _MASK
        high += (square >> 32) & _MASK
    return total, low, high


@jit(LANES)
def _long_sums(tile: Any, signed: bool) -> Any:
    """Return sums of 64-bit integers and of the products of their halves, in halves again.

    ``x = h * 2**32 + l``, so that ``x**2 = h**2 * 2**64 + h * l * 2**33 + l**2``.
    """
    low = np.int64(0)
    high = np.int64(0)
    ll0, ll1 = np.int64(0), np.int64(0)
    hl0, hl1 = np.int64(0), np.int64(0)
    hh0, hh1 = np.int64(0), np.int64(0)
    for i in range(tile.size):
        value = np.int64(tile[i])
        l = value & _MASK  # noqa: E741
        h = (value >> 32) if signed else (value >> 32) & _MASK
        low += l
        high += h
        product = l * l
        ll0 += product & _MASK
        ll1 += (product >> 32) & _MASK
        product = h * l
        hl0 += product & _MASK
        hl1 += (product >> 32) if signed else (product >> 32) & _MASK
        product = h * h
        hh0 += product & _MASK
        hh1 += (product >> 32) & _MASK
    return low, high, ll0, ll1, hl0, hl1, hh0, hh1


@jit(LANES)
def put_long(
    g: int,
    low: int,
    high: int,
    ll0: int,
    ll1: int,
    hl0: int,
    hl1: int,
    hh0: int,
    hh1: int,
    sums: Any,
) -> None:
    """Add sums of 64-bit integers to group g."""
    put(sums.total, g, low, 0, sums.escaped)
    put(sums.total, g, high, 32, sums.escaped)
    put(sums.squares, g, ll0, 0, sums.escaped)
    put(sums.squares, g, ll1, 32, sums.escaped)
    put(sums.squares, g, hl0, 33, sums.escaped)
    put(sums.squares, g, hl1, 65, sums.escaped)
    put(sums.squares, g, hh0, 64, sums.escaped)
    put(sums.squares, g, hh1, 96, sums.escaped)


def add_integers(tile: Any, g: int, sums: Any) -> None:
    """Add a tile of at most `TILE` integers to group g."""
    raise NotImplementedError("only for compiled code")


@overload(add_integers)
def _add_integers(tile: Any, g: Any, sums: Any) -> Callable[..., Any]:
    if tile.dtype.bitwidth == 64:
        signed = tile.dtype == types.int64

        def long(tile: Any, g: Any, sums: Any) -> None:
            _extremes(tile, g, sums)
            sums.count[g] += tile.size
            a, b, c, d, e, f, h, i = _long_sums(tile, signed)
            put_long(g, a, b, c, d, e, f, h, i, sums)

        return long
    parts = {8: _byte_sums, 16: _short_sums, 32: _word_sums}[tile.dtype.bitwidth]

    def short(tile: Any, g: Any, sums: Any) -> None:
        _extremes(tile, g, sums)
        sums.count[g] += tile.size
        total, low, high = parts(tile)
        put(sums.total, g, total, 0, sums.escaped)
        put(sums.squares, g, low, 0, sums.escaped)
        put(sums.squares, g, high, 32, sums.escaped)

    return short
