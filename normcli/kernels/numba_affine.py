"""Compiled ``((x - subtract) * factor) * multiply + add``, row by row.

Along a row each pair of tables either varies with the element or is one number; the four cases are
loops of their own, because only then are they vectorized.
"""

from __future__ import annotations

from typing import Any

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_origins import load_less

# As many elements as fit the L1 cache twice: what is read and what is written.
TILE = 2048


@jit(LANES)
def _by_none(
    tile: Any, out: Any, subtract: float, factor: float, multiply: float, add: float
) -> None:
    factor = factor * multiply
    for j in range(tile.size):
        out[j] = (tile[j] - subtract) * factor + add


@jit(LANES)
def _by_first(tile: Any, out: Any, subtract: Any, factor: Any, multiply: float, add: float) -> None:
    for j in range(tile.size):
        out[j] = (tile[j] - subtract[j]) * factor[j] * multiply + add


@jit(LANES, inline=True)
def by_second(tile: Any, out: Any, subtract: float, factor: float, multiply: Any, add: Any) -> None:
    """Transform a row along which the second pair of tables varies."""
    for j in range(tile.size):
        out[j] = (tile[j] - subtract) * factor * multiply[j] + add[j]


@jit(LANES)
def _by_both(tile: Any, out: Any, subtract: Any, factor: Any, multiply: Any, add: Any) -> None:
    for j in range(tile.size):
        out[j] = (tile[j] - subtract[j]) * factor[j] * multiply[j] + add[j]


@jit(LANES, entry=True)
def affine(
    flat: Any,
    half: Any,
    scratch: Any,
    out: Any,
    less: Any,
    subtract: Any,
    factor: Any,
    multiply: Any,
    add: Any,
    origin: Any,
    shape: Any,
    strides: Any,
    firsts: Any,
    seconds: Any,
) -> None:
    """Transform rows on four outer axes.

    `less` holds the origins of integers, which are subtracted before anything is rounded, or None.
    `origin` is where memory, the first pair and the second pair begin; `strides`, `firsts` and
    `seconds` are their steps on the outer axes and, last, along the row: 0 or 1.
    """
    length = shape[4]
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                for d in range(shape[3]):
                    at = (
                        origin[0] + a * strides[0] + b * strides[1] + c * strides[2]
                        + d * strides[3]
                    )  # fmt: skip
                    f = origin[1] + a * firsts[0] + b * firsts[1] + c * firsts[2] + d * firsts[3]
                    s = (
                        origin[2] + a * seconds[0] + b * seconds[1] + c * seconds[2]
                        + d * seconds[3]
                    )  # fmt: skip
                    for j in range(0, length, TILE):
                        n = min(TILE, length - j)
                        tile, _ = load_less(
                            flat, at + j, at + j + n, half, scratch, less, f + j * firsts[4],
                            firsts[4],
                        )  # fmt: skip
                        to = out[at + j : at + j + n]
                        if firsts[4] == 0 and seconds[4] == 0:
                            _by_none(tile, to, subtract[f], factor[f], multiply[s], add[s])
                        elif seconds[4] == 0:
                            _by_first(
                                tile, to, subtract[f + j : f + j + n], factor[f + j : f + j + n],
                                multiply[s], add[s],
                            )  # fmt: skip
                        elif firsts[4] == 0:
                            by_second(
                                tile, to, subtract[f], factor[f], multiply[s + j : s + j + n],
                                add[s + j : s + j + n],
                            )  # fmt: skip
                        else:
                            _by_both(
                                tile, to, subtract[f + j : f + j + n], factor[f + j : f + j + n],
                                multiply[s + j : s + j + n], add[s + j : s + j + n],
                            )  # fmt: skip
