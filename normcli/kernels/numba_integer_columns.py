"""Compiled sums over columns of integers: the innermost axis is kept, its elements are lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normcli.kernels.numba_integers import put_long
from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_lane_room import PITCH, WIDTH
from normcli.kernels.numba_sums import put

# Sums of lanes, int64 at constant distances in one array: see `numba_lane_room`.
ACCUMULATORS = 8 * PITCH
# Rows whose sums of 32-bit halves are sure to fit in int64.
_ROWS = 1 << 30
_MASK = 0xFFFFFFFF


@jit(LANES)
def _short_row(row: Any, acc: Any) -> None:
    """Add integers of at most 16 bits, whose squares have at most 32."""
    for j in range(row.size):
        value = np.int64(row[j])
        acc[j] += value
        acc[PITCH + j] += value * value


@jit(LANES)
def _word_row(row: Any, acc: Any) -> None:
    for j in range(row.size):
        value = np.int64(row[j])
        square = value * value
        acc[j] += value
        acc[PITCH + j] += square & _MASK
        acc[2 * PITCH + j] += (square >> 32) & _MASK


@jit(LANES)
def _long_row(row: Any, signed: bool, acc: Any) -> None:
    """Add 64-bit integers by the products of their halves: see `numba_integers`."""
    for j in range(row.size):
        value = np.int64(row[j])
        l = value & _MASK  # noqa: E741
        h = (value >> 32) if signed else (value >> 32) & _MASK
        acc[j] += l
        acc[PITCH + j] += h
        product = l * l
        acc[2 * PITCH + j] += product & _MASK
        acc[3 * PITCH + j] += (product >> 32) & _MASK
        product = h * l
        acc[4 * PITCH + j] += product & _MASK
        acc[5 * PITCH + j] += (product >> 32) if signed else (product >> 32) & _MASK
        product = h * h
        acc[6 * PITCH + j] += product & _MASK
        acc[7 * PITCH + j] += (product >> 32) & _MASK


@jit(LANES)
def _extremes_row(row: Any, ext: Any) -> None:
    for j in range(row.size):
        value = row[j]
        ext[j] = value if value < ext[j] else ext[j]
        ext[PITCH + j] = value if value > ext[PITCH + j] else ext[PITCH + j]


def _row(row: Any, acc: Any) -> None:
    raise NotImplementedError("only for compiled code")


@overload(_row)
def _row_as(row: Any, acc: Any) -> Callable[..., Any]:
    if row.dtype.bitwidth == 64:
        signed = row.dtype == types.int64

        def long(row: Any, acc: Any) -> None:
            _long_row(row, signed, acc)

        return long
    add = _word_row if row.dtype.bitwidth == 32 else _short_row

    def short(row: Any, acc: Any) -> None:
        add(row, acc)

    return short


def _put(ext: Any, g: int, j: int, acc: Any, sums: Any) -> None:
    raise NotImplementedError("only for compiled code")


@overload(_put)
def _put_as(ext: Any, g: Any, j: Any, acc: Any, sums: Any) -> Callable[..., Any]:
    if ext.dtype.bitwidth == 64:

        def long(ext: Any, g: Any, j: Any, acc: Any, sums: Any) -> None:
            put_long(
                g, acc[j], acc[PITCH + j], acc[2 * PITCH + j], acc[3 * PITCH + j],
                acc[4 * PITCH + j], acc[5 * PITCH + j], acc[6 * PITCH + j], acc[7 * PITCH + j],
                sums,
            )  # fmt: skip

        return long

    def short(ext: Any, g: Any, j: Any, acc: Any, sums: Any) -> None:
        put(sums.total, g, acc[j], 0, sums.escaped)
        put(sums.squares, g, acc[PITCH + j], 0, sums.escaped)
        put(sums.squares, g, acc[2 * PITCH + j], 32, sums.escaped)

    return short


@jit(LANES, entry=True)
def integer_columns(
    flat: Any,
    acc: Any,
    ext: Any,
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
    """Add columns of `height` integers, on three outer axes, to their groups; see `columns`."""
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                at = origin + a * strides[0] + b * strides[1] + c * strides[2]
                g = group + a * steps[0] + b * steps[1] + c * steps[2]
                for first in range(0, owner.size, WIDTH):
                    width = min(WIDTH, owner.size - first)
                    for begin in range(0, height, _ROWS):
                        rows = min(_ROWS, height - begin)
                        start = at + first + begin * stride
                        _strip(
                            flat, acc, ext, start, rows, stride, width,
                            g, owner[first : first + width], sums,
                        )  # fmt: skip


@jit(LANES)
def _strip(
    flat: Any,
    acc: Any,
    ext: Any,
    at: int,
    height: int,
    stride: int,
    width: int,
    group: int,
    owner: Any,
    sums: Any,
) -> None:
    for j in range(width):
        ext[j] = flat[at + j]
        ext[PITCH + j] = flat[at + j]
        for i in range(8):
            acc[i * PITCH + j] = 0
    for i in range(height):
        row = flat[at + i * stride : at + i * stride + width]
        _row(row, acc)
        _extremes_row(row, ext)
    for j in range(width):
        g = group + owner[j]
        sums.count[g] += height
        sums.low[g] = min(sums.low[g], np.float64(ext[j]))
        sums.high[g] = max(sums.high[g], np.float64(ext[PITCH + j]))
        _put(ext, g, j, acc, sums)
