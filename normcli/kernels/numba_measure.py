"""The compiled measure: which loop runs over which axes of a block.

A piece's innermost axis decides. Aggregated: rows (`numba_rows`). Kept: columns
(`numba_columns`, `numba_integer_columns`), with the nearest aggregated axis outside as their
height. Axes too short for vector registers are measured as more lanes than there are groups:

- few lanes: every r-th row forms lanes of its own, about `LANES` together;
- short rows: each element of the row is a lane.

All sums are exact, so none of this shows in the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.kernels import numba_integer_columns
from normcli.kernels import numba_lane_room as lane_room
from normcli.kernels.numba_columns import columns
from normcli.kernels.numba_lanes import SIDE
from normcli.kernels.numba_memory import Memory
from normcli.kernels.numba_rows import rows
from normcli.kernels.numba_splits import TILE
from normcli.kernels.numba_sums import Sums, new_sums, settled, widths_of
from normcli.kernels.pieces import Dense, Piece, cut, region_shape

# Fewer lanes than this are widened by taking several rows as one, to about LANES.
NARROW = 256
LANES = 512
# Rows shorter than this become lanes where at least TALL of them fall into each group.
SHORT = 64
TALL = 32


@dataclass(frozen=True)
class _Loop:
    """One axis: its extent, its stride in memory, and its step in the groups (0: aggregated)."""

    extent: int
    stride: int
    group: int
    kept: bool


def measure(values: np.ndarray, geometry: Geometry, start: tuple[int, ...]) -> ExactMoments:
    """Return the exact moments of one block; as `numpy_tiles.measure`."""
    block = Dense.of(values)
    memory = Memory.of(block.flat)
    shape = region_shape(geometry, values.shape, start)
    pieces = cut(block, geometry, start)
    for widths in widths_of(memory.flat.dtype, memory.half):
        sums = new_sums(prod(shape), widths, memory.wide)
        for piece in pieces:
            _measure_piece(memory, piece, sums)
        if not sums.escaped[0]:
            break
    return settled(sums).reshape(shape)


def _measure_piece(memory: Memory, piece: Piece, sums: Sums) -> None:
    loops = [_Loop(axis.extent, axis.stride, axis.group, axis.kept) for axis in piece.axes]
    offset = piece.offset
    if loops[-1].stride != 1:
        # The rim of a divided innermost axis: one element in many.
        elements = np.ascontiguousarray(piece.elements(memory.flat)).reshape(-1)
        elements.flags.writeable = False
        strides = [prod(piece.shape[i + 1 :]) for i in range(len(loops))]
        loops = [replace(loop, stride=s) for loop, s in zip(loops, strides, strict=True)]
        memory, offset = Memory(elements, memory.half), 0
    _measure(_Work(memory, piece.group, sums), offset, _merge(loops))


@dataclass(frozen=True)
class _Work:
    """What is measured, the first group, and where the sums go."""

    memory: Memory
    group: int
    sums: Sums


def _measure(work: _Work, offset: int, loops: list[_Loop]) -> None:
    inner, outer = loops[-1], loops[:-1]
    if not inner.kept:
        tall = prod(loop.extent for loop in outer if not loop.kept)
        if inner.extent >= SHORT or tall < TALL:
            _rows(work, offset, loops)
            return
    lanes = [inner]
    while outer and outer[-1].kept and _follows(outer[-1], lanes):
        lanes.insert(0, outer.pop())
    width = prod(loop.extent for loop in lanes)
    if width < NARROW and outer and not outer[-1].kept and _follows(outer[-1], lanes):
        high = outer.pop()
        # Whole vectors of lanes.
        step = SIDE // gcd(SIDE, width)
        together = max(1, LANES // (step * width)) * step
        times, rest = divmod(high.extent, together)
        if times >= TALL:
            many = replace(high, extent=times, stride=together * high.stride)
            _columns(work, offset, [*outer, many], [replace(high, extent=together), *lanes])
            if not rest:
                return
            offset += times * together * high.stride
            high = replace(high, extent=rest)
        outer = [*outer, high]
    _columns(work, offset, outer, lanes)


def _rows(work: _Work, offset: int, loops: list[_Loop]) -> None:
    memory = work.memory
    scratch = None if memory.integers else memory.scratch(TILE)
    shape, strides, steps, further = _outer(loops[:-1], 4)
    for more, group in further:
        rows(
            memory.flat, memory.half, scratch, offset + more, shape, strides, steps,
            loops[-1].extent, work.group + group, work.sums,
        )  # fmt: skip


def _columns(work: _Work, offset: int, loops: list[_Loop], lanes: list[_Loop]) -> None:
    """Measure columns; aggregated axes outside of their height are added one by one."""
    last = max((i for i, loop in enumerate(loops) if not loop.kept), default=None)
    tall = _Loop(1, 0, 0, False) if last is None else loops[last]
    others = [loop for i, loop in enumerate(loops) if i != last]
    owner = _owner(lanes)
    add = _adder(work.memory)
    shape, strides, steps, further = _outer(others, 3)
    for more, group in further:
        add(
            offset + more, shape, strides, steps, tall.extent, tall.stride,
            work.group + group, owner, work.sums,
        )  # fmt: skip


def _adder(memory: Memory) -> Any:
    """Return the compiled loop over columns of a type, with its room."""
    if memory.integers:
        integers = numba_integer_columns
        acc = np.empty(integers.ACCUMULATORS, np.int64)
        ext = np.empty(2 * lane_room.PITCH, memory.flat.dtype)
        return lambda *place: integers.integer_columns(memory.flat, acc, ext, *place)
    scratch = memory.scratch(lane_room.HEIGHT * lane_room.WIDTH)
    zeros = np.zeros(lane_room.WIDTH, memory.wide)
    zeros.flags.writeable = scratch is not None
    room = (
        np.empty(lane_room.ACCUMULATORS),
        np.zeros(lane_room.INTEGERS, np.int64),
        np.empty(lane_room.BITS, f"i{memory.wide.itemsize}"),
        np.empty(lane_room.HEIGHT, memory.wide),
        zeros,
    )
    return lambda *place: columns(memory.flat, memory.half, scratch, room, *place)


def _owner(lanes: list[_Loop]) -> np.ndarray:
    """Return the group of each lane."""
    owner = np.zeros(1, np.int64)
    for loop in lanes:
        owner = (owner[:, np.newaxis] + loop.group * np.arange(loop.extent)).reshape(-1)
    return owner


def _follows(outer: _Loop, lanes: list[_Loop]) -> bool:
    return outer.stride == lanes[0].extent * lanes[0].stride


def _merge(loops: list[_Loop]) -> list[_Loop]:
    merged: list[_Loop] = []
    for loop in loops:
        last = merged[-1] if merged else None
        if (
            last
            and last.kept == loop.kept
            and last.stride == loop.extent * loop.stride
            and last.group == loop.extent * loop.group
        ):
            merged[-1] = replace(loop, extent=last.extent * loop.extent)
        else:
            merged.append(loop)
    return merged


def _outer(
    loops: list[_Loop], count: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
    """Return the last `count` outer loops for the compiled code, and where those before go."""
    before = max(0, len(loops) - count)
    places = [
        (
            sum(i * loop.stride for i, loop in zip(index, loops, strict=False)),
            sum(i * loop.group for i, loop in zip(index, loops, strict=False)),
        )
        for index in product(*(range(loop.extent) for loop in loops[:before]))
    ]
    pad = count - (len(loops) - before)
    return (
        (1,) * pad + tuple(loop.extent for loop in loops[before:]),
        (0,) * pad + tuple(loop.stride for loop in loops[before:]),
        (0,) * pad + tuple(loop.group for loop in loops[before:]),
        places,
    )
