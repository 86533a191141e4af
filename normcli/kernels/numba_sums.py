"""Exact sums of groups, as the compiled loops add to them: limbs of 32-bit digits in int64.

The units of a group's limbs follow from its first tile, with room below and above; what does not
fit is not added but told (`escaped`), and the block is then measured again with more limbs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.kernels.numba_jit import LANES, jit

UNSET = 1 << 40
# A highest limb under this is folded into the one below.
SMALL = 1 << 8


class Sums(NamedTuple):
    """Running sums of the groups of a block; see `ExactMoments` for the first seven.

    `guess` holds the power of two above the elements of the last tile, `escaped` is not 0 once a
    sum did not fit, `room` has three elements of the type that loops see. `below` bits are
    kept free under the first tile of a group.
    """

    count: np.ndarray  # type: ignore[assignment]
    bad: np.ndarray
    low: np.ndarray
    high: np.ndarray
    base: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    guess: np.ndarray
    escaped: np.ndarray
    room: np.ndarray
    below: int


class Widths(NamedTuple):
    """Limbs of the sum and of the sum of squares, bits kept free below, and a fixed base."""

    total: int
    squares: int
    below: int
    base: int = UNSET


# Sums of 2**63 integers of 32 or 64 bits fit, so they never escape. The narrow limbs of floats hold
# what one tile may hold in one pass (2**42 or 2**84 to one) of 2**34 elements with 32 bits to
# spare below and 20 above; the last ones hold every finite number.
_INTEGERS = (Widths(4, 5, 0, 0),)
_LONG_INTEGERS = (Widths(4, 7, 0, 0),)
_SINGLE = (Widths(6, 10, 32), Widths(14, 22, 0, -5))
_DOUBLE = (Widths(8, 14, 32), Widths(24, 44, 256), Widths(71, 139, 0, -34))


def widths_of(dtype: np.dtype, half: int | None) -> tuple[Widths, ...]:
    """Return the limbs to try for a type, the narrowest first."""
    if dtype.kind in "iu" and half is None:
        return _LONG_INTEGERS if dtype.itemsize == 8 else _INTEGERS
    return _DOUBLE if dtype.itemsize == 8 else _SINGLE


def new_sums(groups: int, widths: Widths, wide: np.dtype) -> Sums:
    """Return the sums of nothing."""
    return Sums(
        np.zeros(groups, np.int64),
        np.zeros(groups, np.int64),
        np.full(groups, np.inf),
        np.full(groups, -np.inf),
        np.full(groups, widths.base, np.int64),
        np.zeros((groups, widths.total), np.int64),
        np.zeros((groups, widths.squares), np.int64),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.empty(3, wide),
        widths.below,
    )


class GroupSums(NamedTuple):
    """`Sums` of one group after the other; `start` is where the limbs of each begin."""

    count: np.ndarray  # type: ignore[assignment]
    bad: np.ndarray
    low: np.ndarray
    high: np.ndarray
    base: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    guess: np.ndarray
    escaped: np.ndarray
    room: np.ndarray
    below: int
    start: int


def new_group(widths: Widths, wide: np.dtype) -> GroupSums:
    """Return room for the sums of one group."""
    return GroupSums(*new_sums(1, widths, wide), widths.base)


def settled(sums: Sums) -> ExactMoments:
    """Return the sums as a value, their limbs carried."""
    sums.base[sums.base == UNSET] = 0
    return ExactMoments(
        sums.count,
        sums.bad,
        sums.low,
        sums.high,
        sums.base,
        sums.total[:, : trim(sums.total)].copy(),
        sums.squares[:, : trim(sums.squares)].copy(),
    )


@jit(LANES, entry=True)
def trim(held: Any) -> int:
    """Carry, fold highest limbs that no group needs into those below, and return how many stay.

    A highest limb of less than 8 bits leaves the one below it under 41 bits.
    """
    carry(held)
    size = held.shape[1]
    while size > 1:
        for g in range(held.shape[0]):
            if not -SMALL < held[g, size - 1] < SMALL:
                return size
        size -= 1
        for g in range(held.shape[0]):
            held[g, size - 1] += held[g, size] << 32
    return size


@jit(LANES)
def carry(held: Any) -> None:
    """Bring all limbs but the highest to [0, 2**32)."""
    for g in range(held.shape[0]):
        for i in range(held.shape[1] - 1):
            held[g, i + 1] += held[g, i] >> 32
            held[g, i] &= 0xFFFFFFFF


@jit(LANES, inline=True)
def put(held: Any, g: int, value: int, bit: int, escaped: Any) -> None:
    """Add ``value * 2**bit`` to the limbs of group g."""
    if value == 0:
        return
    at = bit >> 5
    if at < 0 or at + 3 > held.shape[1]:
        escaped[0] = 1
        return
    turn = bit & 31
    held[g, at] += (value << turn) & 0xFFFFFFFF
    held[g, at + 1] += (value >> (32 - turn)) & 0xFFFFFFFF
    held[g, at + 2] += value >> min(64 - turn, 63)


@jit(LANES, inline=True)
def base_of(g: int, bit: int, sums: Any) -> Any:
    """Return the lowest bit of the total of group g, whose elements are multiples of 2**bit."""
    if sums.base[g] == UNSET:
        sums.base[g] = (bit - sums.below) >> 5
    return np.int64(32 * sums.base[g])
