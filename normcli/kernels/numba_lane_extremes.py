"""Extremes of lanes, from the bits of their elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_lane_room import (
    ABOVE,
    FLOOR,
    HIGH,
    HOLDS,
    LARGEST,
    LEAST,
    LOW,
    MOST,
    NONZERO,
    SMALLEST,
)


@jit(LANES)
def _extremes_rows(one: Any, two: Any, three: Any, four: Any, top: int, ext: Any) -> None:
    for j in range(one.size):
        a, b, c, d = one[j], two[j], three[j], four[j]
        least = a if a < b else b
        other = c if c < d else d
        least = least if least < other else other
        ext[LEAST + j] = least if least < ext[LEAST + j] else ext[LEAST + j]
        most = a if a > b else b
        other = c if c > d else d
        most = most if most > other else other
        ext[MOST + j] = most if most > ext[MOST + j] else ext[MOST + j]
        a, b, c, d = a ^ top, b ^ top, c ^ top, d ^ top
        least = a if a < b else b
        other = c if c < d else d
        least = least if least < other else other
        ext[SMALLEST + j] = least if least < ext[SMALLEST + j] else ext[SMALLEST + j]
        most = a if a > b else b
        other = c if c > d else d
        most = most if most > other else other
        ext[LARGEST + j] = most if most > ext[LARGEST + j] else ext[LARGEST + j]


@jit(LANES)
def extremes_of_tile(keys: Any, stride: int, width: int, height: int, top: int, ext: Any) -> None:
    """Take the extremes of each lane of a tile, four rows at a time."""
    for i in range(0, height, 4):
        # The last rows of a tile may be met twice.
        at = max(min(i, height - 4), 0)
        one = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        two = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        three = keys[at * stride : at * stride + width]
        at = min(at + 1, height - 1)
        four = keys[at * stride : at * stride + width]
        _extremes_rows(one, two, three, four, top, ext)


@jit(LANES)
def clear_extremes(keys: Any, width: int, top: int, ext: Any) -> None:
    """Begin with the first row."""
    for j in range(width):
        ext[LEAST + j] = keys[j]
        ext[MOST + j] = keys[j]
        ext[SMALLEST + j] = keys[j] ^ top
        ext[LARGEST + j] = keys[j] ^ top


@jit(LANES)
def _least_rows(row: Any, mask: int, ext: Any) -> None:
    for j in range(row.size):
        bits = row[j] & mask
        bits = bits if bits != 0 else mask
        ext[NONZERO + j] = bits if bits < ext[NONZERO + j] else ext[NONZERO + j]


@jit(LANES)
def least_magnitudes(
    keys: Any, stride: int, width: int, height: int, mask: int, top: int, ext: Any
) -> None:
    """Find the smallest magnitudes, without 0."""
    zeros = False
    for j in range(width):
        low = mask
        bits = ext[SMALLEST + j] ^ top
        under = ext[LEAST + j] & mask
        low = bits if ext[MOST + j] >= 0 else low
        low = under if ext[LEAST + j] < 0 and under < low else low
        ext[NONZERO + j] = low
        zeros |= low == 0
    if zeros:
        for j in range(width):
            ext[NONZERO + j] = mask
        for i in range(height):
            _least_rows(keys[i * stride : i * stride + width], mask, ext)


@jit(LANES, inline=True)
def largest_magnitude(j: int, mask: int, top: int, ext: Any) -> Any:
    """Return the bits of the largest magnitude of a lane."""
    return max(np.int64(ext[MOST + j]), np.int64(ext[LARGEST + j] ^ top) & mask)


@jit(LANES)
def which_hold(width: int, mask: int, top: int, ext: Any) -> bool:
    """Find which lanes hold; return whether all do."""
    every = True
    for j in range(width):
        most = ext[MOST + j]
        other = (ext[LARGEST + j] ^ top) & mask
        most = most if most > other else other
        holds = most < ext[ABOVE + j] and ext[NONZERO + j] >= ext[FLOOR + j]
        ext[HOLDS + j] = holds
        every &= holds
    return every


@jit(LANES)
def take_extremes(width: int, top: int, acc: Any, ext: Any, floats: Any) -> None:
    """Add the extremes of lanes that hold to those of the strip."""
    for j in range(width):
        # The bits of both extremes, in place of what they were found from.
        smallest, largest = ext[SMALLEST + j] ^ top, ext[LARGEST + j] ^ top
        least, most = ext[LEAST + j], ext[MOST + j]
        ext[SMALLEST + j] = largest if least < 0 else smallest
        ext[LARGEST + j] = most if most >= 0 else least
    for j in range(width):
        low = np.float64(floats[SMALLEST + j]) + 0.0
        high = np.float64(floats[LARGEST + j]) + 0.0
        holds = ext[HOLDS + j] != 0
        acc[LOW + j] = low if holds and low < acc[LOW + j] else acc[LOW + j]
        acc[HIGH + j] = high if holds and high > acc[HIGH + j] else acc[HIGH + j]
