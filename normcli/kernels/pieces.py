"""A block cut into pieces whose axes are each purely kept or purely aggregated.

Kernels never see layouts, modes or memory orders. They see a flat piece of memory and a few axes,
outermost first, that say how far one step goes in memory, in the statistics and in scale and bias.
Fortran order, groups of channels and batches of observations all become such axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from normcli.domain.geometry import Geometry


@dataclass(frozen=True)
class Axis:
    """One axis of a piece; all steps are counted in elements.

    Attributes
    ----------
    extent : int
        Number of steps.
    stride : int
        Step in the memory of the block.
    group : int
        Step in the flat statistics of the block.
    scale : int
        Step in the flat scale and bias of the block, 0 where they are shared.
    kept : bool
        Whether each step has statistics of its own; group is 0 otherwise.
    """

    extent: int
    stride: int
    group: int
    scale: int
    kept: bool


@dataclass(frozen=True)
class Piece:
    """A part of a block, with where it begins in memory, statistics, and scale and bias."""

    axes: tuple[Axis, ...]
    offset: int
    group: int
    scale: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the axes, outermost in memory first."""
        return tuple(axis.extent for axis in self.axes)

    def elements(self, flat: np.ndarray) -> np.ndarray:
        """Return a view of this piece of the block's memory."""
        return _view(flat, self.offset, self.shape, [axis.stride for axis in self.axes])

    def statistics(self, flat: np.ndarray) -> np.ndarray:
        """Return a view of this piece of a statistics array; only the kept axes."""
        kept = [axis for axis in self.axes if axis.kept]
        return _view(flat, self.group, [a.extent for a in kept], [a.group for a in kept])

    def along_groups(self, flat: np.ndarray) -> np.ndarray:
        """Return a table of the statistics' extents, repeated to the extents of this piece."""
        return _view(flat, self.group, self.shape, [axis.group for axis in self.axes])

    def along_scale(self, flat: np.ndarray) -> np.ndarray:
        """Return a table of the scale's extents, repeated to the extents of this piece."""
        return _view(flat, self.scale, self.shape, [axis.scale for axis in self.axes])


@dataclass(frozen=True)
class Dense:
    """A block whose memory has no gaps.

    Attributes
    ----------
    values : ndarray
        The block, or a copy of it where its memory was not dense.
    flat : ndarray
        The same memory in one dimension.
    order : tuple of int
        Axes of the block, outermost in memory first.
    """

    values: np.ndarray
    flat: np.ndarray
    order: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Dense:
        """Return a block as dense memory, copied only when it has to be."""
        order = tuple(sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis])))
        ordered = values.transpose(order)
        if not (ordered.flags.c_contiguous and ordered.flags.aligned):
            ordered = ordered.copy(order="C")
        return cls(ordered.transpose(_inverse(order)), ordered.reshape(-1), order)

    def empty_like(self, dtype: np.dtype) -> Dense:
        """Return a new block with the same extents and the same order in memory."""
        ordered = np.empty([self.values.shape[axis] for axis in self.order], dtype)
        return Dense(ordered.transpose(_inverse(self.order)), ordered.reshape(-1), self.order)


def region_shape(
    geometry: Geometry, shape: tuple[int, ...], start: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the extents of the statistics that a block of extents `shape` at `start` touches."""
    stop = tuple(a + n for a, n in zip(start, shape, strict=True))
    return tuple(part.stop - part.start for part in geometry.region(start, stop))


def cut(block: Dense, geometry: Geometry, start: tuple[int, ...]) -> tuple[Piece, ...]:
    """Return the pieces of a block: head, whole segments and tail of the divided axis, if any."""
    divided = geometry.divided_axis
    begin = 0 if divided is None else start[divided] % geometry.segments[divided]
    return _cut(block.values.shape, block.order, geometry, begin)


# Blocks of an array are of a few kinds, and cutting one takes 15 us.
@lru_cache(maxsize=64)
def _cut(
    shape: tuple[int, ...], order: tuple[int, ...], geometry: Geometry, begin: int
) -> tuple[Piece, ...]:
    """Return the pieces of a block that begins `begin` elements into a segment."""
    divided = geometry.divided_axis
    start = tuple(begin if axis == divided else 0 for axis in range(len(shape)))
    groups = _steps(region_shape(geometry, shape, start), geometry.kept, len(shape))
    scales = _steps([shape[a] for a in geometry.scale_axes], geometry.scale_axes, len(shape))
    strides = _steps([shape[axis] for axis in order], order, len(shape))
    axes = [
        Axis(n, stride, group, scale, axis in geometry.kept)
        for axis, (n, stride, group, scale) in enumerate(
            zip(shape, strides, groups, scales, strict=True)
        )
    ]
    if divided is None:
        return (Piece(_canonical(axes), 0, 0, 0),)
    whole = axes[divided]
    found = []
    for low, segment, count, size in _segments(
        start[divided], whole.extent, geometry.segments[divided]
    ):
        outer = replace(whole, extent=count, stride=size * whole.stride, scale=size * whole.scale)
        inner = replace(whole, extent=size, group=0, kept=False)
        found.append(
            Piece(
                _canonical([*axes[:divided], outer, inner, *axes[divided + 1 :]]),
                low * whole.stride,
                segment * whole.group,
                low * whole.scale,
            )
        )
    return tuple(found)


def flat_table(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a table of a transform as flat float64, after a check of its extents."""
    if table.shape != shape:
        raise ValueError(f"a table of shape {table.shape} for a block that needs {shape}")
    return np.ascontiguousarray(table, np.float64).reshape(-1)


def tiles(shape: tuple[int, ...], tile: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Return the boxes of at most `tile` elements along each axis that cover `shape`, in order."""
    return product(
        *(
            [slice(i, min(i + step, n)) for i in range(0, n, step)]
            for n, step in zip(shape, tile, strict=True)
        )
    )


def merge_axes(axes: list[Axis]) -> list[Axis]:
    """Return the axes with neighbours joined that are one axis in memory and in every table."""
    merged: list[Axis] = []
    for axis in axes:
        if merged and _continues(merged[-1], axis):
            merged[-1] = replace(axis, extent=merged[-1].extent * axis.extent)
        else:
            merged.append(axis)
    return merged


def _canonical(axes: list[Axis]) -> tuple[Axis, ...]:
    longer = [axis for axis in axes if axis.extent > 1]
    ordered = sorted(longer, key=lambda axis: -axis.stride)
    return tuple(merge_axes(ordered)) or (Axis(1, 1, 0, 0, False),)


def _continues(outer: Axis, inner: Axis) -> bool:
    return (
        outer.kept == inner.kept
        and outer.stride == inner.extent * inner.stride
        and outer.group == inner.extent * inner.group
        and outer.scale == inner.extent * inner.scale
    )


def _segments(start: int, extent: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield first element, first segment, number of segments and their size, up to three times."""
    position, first = 0, start // size
    head = min(-start % size, extent)
    if head:
        yield 0, 0, 1, head
        position = head
    count = (extent - position) // size
    if count:
        yield position, (start + position) // size - first, count, size
        position += count * size
    if position < extent:
        yield position, (start + position) // size - first, 1, extent - position


def _steps(extents: list[int] | tuple[int, ...], axes: tuple[int, ...], ndim: int) -> list[int]:
    """Return how far one step along each of `ndim` axes goes in a table over some of them."""
    steps = [0] * ndim
    for position, axis in enumerate(axes):
        steps[axis] = prod(extents[position + 1 :])
    return steps


def _view(
    flat: np.ndarray, offset: int, extents: list[int] | tuple[int, ...], steps: list[int]
) -> np.ndarray:
    return as_strided(flat[offset:], tuple(extents), tuple(s * flat.itemsize for s in steps))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))
