"""The compiled measure: which loop runs over which axes of a block.

A piece's innermost axis decides. Aggregated: rows (`numba_rows`). Kept: columns
(`numba_columns`), with the nearest aggregated axis outside as their height. Axes too short for
vector registers are measured as more lanes than there are groups, which are merged afterwards in
a fixed order:

- few lanes: every r-th row forms lanes of its own, about `LANES` together;
- short rows: each element of the row is a lane.

So the moments of a group have the same bits however many groups a block holds, except that where
lanes are few r depends on their number, and that a kept axis of one element disappears and
lets its neighbours join.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.kernels import numpy_tiles
from normcli.kernels.fine import FineMoments, reshape
from normcli.kernels.numba_columns import ACCUMULATORS, HEIGHT, PITCH, WIDTH, columns
from normcli.kernels.numba_memory import Memory
from normcli.kernels.numba_rows import TILE, rows
from normcli.kernels.numpy_tiles import part_of
from normcli.kernels.pieces import Dense, Piece, cut, region_shape

# Fewer lanes than this are widened by taking several rows as one, to about LANES.
NARROW = 64
LANES = 1024
# Rows shorter than this become lanes where at least TALL of them fall into each group.
SHORT = 64
TALL = 32


@dataclass(frozen=True)
class _Loop:
    """One axis: its extent, its stride in memory, and whether each step has its own result."""

    extent: int
    stride: int
    kept: bool


def measure(values: np.ndarray, geometry: Geometry, start: tuple[int, ...]) -> Moments:
    """Return the moments of one block; as `numpy_tiles.measure`, to the last few bits."""
    block = Dense.of(values)
    memory = Memory.of(block.flat)
    shape = region_shape(geometry, values.shape, start)
    pieces = cut(block, geometry, start)
    if len(pieces) == 1 and _in_order(pieces[0]):
        fine = _measure_piece(memory, pieces[0])
    else:
        fine = FineMoments.identity((prod(shape),))
        for piece in pieces:
            view = part_of(fine, piece)
            view.store(..., _measure_piece(memory, piece).reshape(view.tail.shape))
    result = reshape(fine.moments, shape)
    if _beyond_float64(values.dtype, result):
        return numpy_tiles.measure(values, geometry, start)
    return result


def _in_order(piece: Piece) -> bool:
    """Whether the groups of a piece are met in the order of the result."""
    step = 1
    for axis in reversed([axis for axis in piece.axes if axis.kept]):
        if axis.group != step:
            return False
        step *= axis.extent
    return True


def _beyond_float64(dtype: np.dtype, result: Moments) -> bool:
    """Whether integers were rounded on their way to float64."""
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        return False
    return bool(max(-result.minimum.min(), result.maximum.max()) >= 2.0**53)


def _measure_piece(memory: Memory, piece: Piece) -> FineMoments:
    """Return flat moments of a piece, in the order of its kept axes in memory."""
    loops = [_Loop(axis.extent, axis.stride, axis.kept) for axis in piece.axes]
    offset = piece.offset
    if loops[-1].stride != 1:
        # The rim of a divided innermost axis: one element in many.
        elements = np.ascontiguousarray(piece.elements(memory.flat)).reshape(-1)
        elements.flags.writeable = False
        strides = [prod(piece.shape[i + 1 :]) for i in range(len(loops))]
        loops = [replace(loop, stride=s) for loop, s in zip(loops, strides, strict=True)]
        memory, offset = Memory(elements, memory.half), 0
    return _measure(memory, offset, _merge(loops))


def _measure(memory: Memory, offset: int, loops: list[_Loop]) -> FineMoments:
    inner = loops[-1]
    if not inner.kept:
        tall = prod(loop.extent for loop in loops[:-1] if not loop.kept)
        if inner.extent < SHORT and tall >= TALL:
            return _short_rows(memory, offset, loops)
        return _rows(memory, offset, loops)
    if inner.extent < NARROW and len(loops) > 1:
        outer = loops[-2]
        together = -(-LANES // inner.extent)
        if outer.stride == inner.extent and outer.extent >= TALL * together:
            return _few_lanes(memory, offset, loops, together)
    return _columns(memory, offset, loops)


def _short_rows(memory: Memory, offset: int, loops: list[_Loop]) -> FineMoments:
    groups = _groups(loops)
    lanes = _merge([*loops[:-1], replace(loops[-1], kept=True)])
    found = _measure(memory, offset, lanes)
    return found.reshape((groups, loops[-1].extent)).fold(1)


def _few_lanes(memory: Memory, offset: int, loops: list[_Loop], together: int) -> FineMoments:
    outer, inner = loops[-2:]
    times, rest = divmod(outer.extent, together)
    many = [
        *loops[:-2],
        _Loop(times, outer.stride * together, False),
        _Loop(together * inner.extent, 1, True),
    ]
    extents = (_groups(loops[:-2]), together, inner.extent)
    found = _measure(memory, offset, many).reshape(extents).fold(1).reshape((_groups(loops),))
    if rest:
        last = [*loops[:-2], replace(outer, extent=rest), inner]
        offset += times * together * outer.stride
        found = found.merge(_columns(memory, offset, last))
    return found


def _rows(memory: Memory, offset: int, loops: list[_Loop]) -> FineMoments:
    result = FineMoments.identity((_groups(loops),))
    shape, strides, steps, further = _outer(loops[:-1], _steps(loops), 4)
    # Wider integers become float64 in the registers: 6 GB/s by way of a tile, 13 without.
    scratch = memory.scratch(TILE) if memory.flat.itemsize < 4 else None
    pair = np.empty(2, memory.wide)
    for more, group in further:
        rows(
            memory.flat, memory.half, scratch, pair,
            offset + more, shape, strides, steps, loops[-1].extent, group,
            *_arrays(result),
        )  # fmt: skip
    return result


def _columns(memory: Memory, offset: int, loops: list[_Loop]) -> FineMoments:
    """Measure columns; aggregated axes outside of their height are merged one by one."""
    height = max((i for i, loop in enumerate(loops) if not loop.kept), default=None)
    far = [loop for loop in loops[:height] if not loop.kept] if height is not None else []
    near = [loop for i, loop in enumerate(loops) if loop.kept or i == height]
    tall = loops[height] if height is not None else _Loop(1, 0, False)
    kept = [loop for loop in near if loop.kept]
    acc = np.empty(ACCUMULATORS)
    ext = np.empty(2 * PITCH, memory.wide)
    scratch = memory.scratch(HEIGHT * WIDTH)
    shape, strides, steps, further = _outer(kept[:-1], _steps(kept), 3)
    places = list(further)
    result = None
    for index in product(*(range(loop.extent) for loop in far)):
        begin = offset + sum(i * loop.stride for i, loop in zip(index, far, strict=True))
        part = FineMoments.identity((_groups(kept),))
        for more, group in places:
            columns(
                memory.flat, memory.half, scratch, acc, ext,
                begin + more, shape, strides, steps, tall.extent, tall.stride, kept[-1].extent,
                group, *_arrays(part),
            )  # fmt: skip
        result = part if result is None else result.merge(part)
    assert result is not None
    return result


def _arrays(fine: FineMoments) -> tuple[np.ndarray, ...]:
    found = fine.moments
    return (
        found.count, found.mean, fine.tail, found.m2, found.minimum, found.maximum,
        found.nonfinite,
    )  # fmt: skip


def _groups(loops: list[_Loop]) -> int:
    return prod(loop.extent for loop in loops if loop.kept)


def _steps(loops: list[_Loop]) -> list[int]:
    """Return the step of each loop in flat results; 0 where it is aggregated."""
    return [_groups(loops[i + 1 :]) if loop.kept else 0 for i, loop in enumerate(loops)]


def _merge(loops: list[_Loop]) -> list[_Loop]:
    merged: list[_Loop] = []
    for loop in loops:
        last = merged[-1] if merged else None
        if last and last.kept == loop.kept and last.stride == loop.extent * loop.stride:
            merged[-1] = replace(loop, extent=last.extent * loop.extent)
        else:
            merged.append(loop)
    return merged


def _outer(
    loops: list[_Loop], steps: list[int], count: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
    """Return the last `count` outer loops for the compiled code, and where those before go."""
    steps = steps[: len(loops)]
    before = max(0, len(loops) - count)
    places = [
        (
            sum(i * loop.stride for i, loop in zip(index, loops, strict=False)),
            sum(i * step for i, step in zip(index, steps, strict=False)),
        )
        for index in product(*(range(loop.extent) for loop in loops[:before]))
    ]
    pad = count - (len(loops) - before)
    return (
        (1,) * pad + tuple(loop.extent for loop in loops[before:]),
        (0,) * pad + tuple(loop.stride for loop in loops[before:]),
        (0,) * pad + tuple(steps[before:]),
        places,
    )
