"""Which part of an array one of several independent jobs measures."""

from __future__ import annotations

from math import prod

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block, Grid
from normcli.domain.part import Part, boxes
from normcli.planning import blocks
from normcli.planning.memory import MIB

# Parts of few cells would be of unequal size: with 8 of them the largest is an eighth too large.
CELLS_A_PART = 8

# Chunks and segments may have nothing in common; beyond this, chunks are read more than once.
LARGEST_CELL = 256 * MIB


def cut(info: ArrayInfo, geometry: Geometry, number: int, of: int) -> Part:
    """Return part `number` of `of` parts, from 1.

    Cells consist of whole chunks, and of whole segments of a kept axis that is divided, so that
    no chunk is decoded twice. They are cut by shape and chunks alone, whatever the budget is.

    Parameters
    ----------
    info : ArrayInfo
        The array.
    geometry : Geometry
        Its axes.
    number, of : int
        Which part, of how many.
    """
    segments = tuple(
        segment if axis in geometry.kept else 1 for axis, segment in enumerate(geometry.segments)
    )
    unit = blocks.unit_shape(info, (info.chunks, segments))
    if prod(unit) * info.dtype.itemsize > LARGEST_CELL:
        unit = blocks.unit_shape(info, (segments,))
    target = min(blocks.TARGET_BYTES, max(1, info.nbytes // (CELLS_A_PART * of)))
    cell = blocks.grow(info, unit, target)
    cells = len(Grid(info.shape, cell))
    return Part(number, of, cell, (number - 1) * cells // of, number * cells // of)


def part_boxes(info: ArrayInfo, part: Part) -> tuple[Block, ...]:
    """Return the boxes of the array that a part consists of; they never overlap."""
    slowest_first = blocks.storage_order(info)[::-1]
    counts = Grid(info.shape, part.cell).counts
    found = []
    for number, bounds in enumerate(
        boxes(part.first, part.stop, tuple(counts[axis] for axis in slowest_first))
    ):
        start, stop = [0] * info.ndim, [0] * info.ndim
        for axis, (low, high) in zip(slowest_first, bounds, strict=True):
            start[axis] = low * part.cell[axis]
            stop[axis] = min(high * part.cell[axis], info.shape[axis])
        found.append(Block(number, tuple(start), tuple(stop)))
    return tuple(found)
