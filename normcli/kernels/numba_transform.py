"""The compiled transform: how the tables of a block are laid out for the loops.

Tables are brought into the order of the block's memory, so that along a row they vary one by one or
not at all. Rows too short for vector registers are joined with their neighbours, for which the
tables are repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod

import numpy as np

from normcli.domain.geometry import Geometry
from normcli.domain.losses import Losses
from normcli.domain.transform import Transform
from normcli.kernels import numpy_tiles
from normcli.kernels.numba_affine import TILE, affine
from normcli.kernels.numba_memory import Memory
from normcli.kernels.numpy_tiles import flat_tables, transform_piece
from normcli.kernels.pieces import Dense, Piece, cut, region_shape
from normcli.kernels.wide_tables import wide_tables

# Rows shorter than this are joined to rows of about LONG elements.
SHORT = 64
LONG = 1024
# Repeated tables have at most one element for this many of the block.
SPARSE = 32

# Subtract, factor, multiply and add; at last, for integers, their origins, which vary as the first.
Tables = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _Rows:
    """Axes of a piece, outermost first; tables have extent 1 along axes where they do not vary."""

    offset: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    tables: Tables


def transform(
    values: np.ndarray,
    transform: Transform,
    geometry: Geometry,
    start: tuple[int, ...],
    dtype: np.dtype,
    losses: list[Losses] | None = None,
) -> np.ndarray:
    """Return the transformed block; as `numpy_tiles.transform`, to the last bit or two."""
    dtype = np.dtype(dtype)
    # Data that are scaled are as rare as they are slow.
    if dtype.kind != "f" or dtype.itemsize < 4 or transform.exponent is not None:
        return numpy_tiles.transform(values, transform, geometry, start, dtype, losses)
    block = Dense.of(values)
    out = block.empty_like(dtype)
    memory = Memory.of(block.flat)
    groups = region_shape(geometry, values.shape, start)
    transform, wide = wide_tables(transform, values.dtype, dtype, groups)
    tables = flat_tables(transform, geometry, values.shape, start)
    origin = None if wide is None else wide.origin
    for piece in cut(block, geometry, start):
        if piece.axes[-1].stride == 1:
            _transform(memory, out.flat, _rows_of(piece, tables, transform.inverse, origin))
        else:
            # The rim of a divided innermost axis: one element in many.
            transform_piece(block.flat, piece, tables, transform.inverse, out.flat, wide)
    return out.values


def _rows_of(
    piece: Piece, tables: tuple[np.ndarray | None, ...], inverse: bool, origin: np.ndarray | None
) -> _Rows:
    groups = (piece.group, tuple(axis.group for axis in piece.axes))
    scales = (piece.scale, tuple(axis.scale for axis in piece.axes))
    first, second = (scales, groups) if inverse else (groups, scales)
    laid: Tables = (
        *_pair(tables[0], tables[1], (0.0, 1.0), piece.shape, *first),
        *_pair(tables[2], tables[3], (1.0, 0.0), piece.shape, *second),
    )
    if origin is not None:
        laid = (*laid, _laid(origin, piece.shape, *groups))
    strides = tuple(axis.stride for axis in piece.axes)
    return _Rows(piece.offset, piece.shape, strides, laid)


def _pair(
    one: np.ndarray | None,
    other: np.ndarray | None,
    absent: tuple[float, float],
    shape: tuple[int, ...],
    offset: int,
    steps: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Return a pair of tables along the axes of a piece; the absent one changes nothing."""
    extents = tuple(n if step else 1 for n, step in zip(shape, steps, strict=True))
    if one is None and other is None:
        extents = (1,) * len(shape)
    laid = [
        np.full(extents, neutral) if table is None else _laid(table, shape, offset, steps)
        for table, neutral in zip((one, other), absent, strict=True)
    ]
    return laid[0], laid[1]


def _laid(
    table: np.ndarray, shape: tuple[int, ...], offset: int, steps: tuple[int, ...]
) -> np.ndarray:
    extents = tuple(n if step else 1 for n, step in zip(shape, steps, strict=True))
    bytes_ = tuple(step * table.itemsize for step in steps)
    view = np.lib.stride_tricks.as_strided(table[offset:], extents, bytes_)
    return np.ascontiguousarray(view)


def _transform(memory: Memory, out: np.ndarray, rows: _Rows) -> None:
    rows = _joined(rows)
    together = _together(rows)
    if together < 2:
        _run(memory, out, rows)
        return
    extents, strides = rows.extents, rows.strides
    times, rest = divmod(extents[-2], together)
    row = together * extents[-1]
    long = _Rows(
        rows.offset,
        (*extents[:-2], times, row),
        (*strides[:-2], row, 1),
        _each(rows.tables, lambda table: _repeated(table, together, extents[-1])),
    )
    _transform(memory, out, long)
    if rest:
        offset = rows.offset + times * row
        _run(memory, out, _Rows(offset, (*extents[:-2], rest, extents[-1]), strides, rows.tables))


def _together(rows: _Rows) -> int:
    """Return how many short rows are worth joining, in which the tables repeat or go on."""
    if len(rows.extents) < 2 or rows.extents[-1] >= SHORT or rows.strides[-2] != rows.extents[-1]:
        return 0
    outer, inner = rows.extents[-2:]
    together = min(outer, LONG // inner)
    if together < outer and any(table.shape[-2] > 1 for table in rows.tables):
        return 0
    repeated = max(prod(table.shape[:-2]) for table in rows.tables) * together * inner
    return together if repeated * SPARSE <= prod(rows.extents) else 0


def _repeated(table: np.ndarray, together: int, inner: int) -> np.ndarray:
    """Return a table along an axis (of extent 1) and rows of `together` times `inner`."""
    outside = table.shape[:-2]
    if table.shape[-2:] == (1, 1):
        return table
    whole = np.broadcast_to(table, (*outside, together, inner))
    return whole.reshape((*outside, 1, together * inner))


def _joined(rows: _Rows) -> _Rows:
    """Return the rows with neighbouring axes joined that are one in memory and in all tables."""
    extents, strides, tables = list(rows.extents), list(rows.strides), rows.tables
    for i in range(len(extents) - 2, -1, -1):
        here = strides[i] == extents[i + 1] * strides[i + 1] or extents[i] == 1
        if here and all(_continues(table, extents, i) for table in tables):
            extents[i : i + 2] = [extents[i] * extents[i + 1]]
            del strides[i]
            tables = _each(tables, partial(_join, axis=i))
    return _Rows(rows.offset, tuple(extents), tuple(strides), tables)


def _join(table: np.ndarray, axis: int) -> np.ndarray:
    outer, inner = table.shape[axis : axis + 2]
    return table.reshape(*table.shape[:axis], outer * inner, *table.shape[axis + 2 :])


def _continues(table: np.ndarray, extents: list[int], i: int) -> bool:
    return (
        table.shape[i : i + 2] == (1, 1)
        or table.shape[i : i + 2] == tuple(extents[i : i + 2])
        or extents[i] == 1
    )


def _each(tables: Tables, change: Callable[[np.ndarray], np.ndarray]) -> Tables:
    return tuple(change(table) for table in tables)


def _run(memory: Memory, out: np.ndarray, rows: _Rows) -> None:
    subtract, factor, multiply, add, *less = map(_read_only, rows.tables)
    firsts, seconds = _steps(rows.tables[0].shape), _steps(rows.tables[2].shape)
    scratch = memory.scratch(TILE)
    before = max(0, len(rows.extents) - 5)
    pad = (0,) * (5 - len(rows.extents))
    shape = (1,) * len(pad) + rows.extents[before:]
    for index in product(*(range(n) for n in rows.extents[:before])):
        origin = (
            rows.offset + _dot(index, rows.strides),
            _dot(index, firsts),
            _dot(index, seconds),
        )
        affine(
            memory.flat, memory.half, scratch, out, less[0] if less else None,
            subtract, factor, multiply, add, origin, shape, pad + rows.strides[before:],
            pad + firsts[before:], pad + seconds[before:],
        )  # fmt: skip


def _read_only(table: np.ndarray) -> np.ndarray:
    """Return a flat view of a table. Some are of memory that is shared among rows.

    numba takes what may be written to for another type: tables of a batch and tables of instances
    would be compiled for once each, in 1 s.
    """
    view = table.reshape(-1).view()
    view.flags.writeable = False
    return view


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) if n > 1 else 0 for i, n in enumerate(shape))


def _dot(index: tuple[int, ...], steps: tuple[int, ...]) -> int:
    return sum(i * step for i, step in zip(index, steps, strict=False))
