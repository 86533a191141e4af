"""A normalization bound to a shape: which statistics each element of the array belongs to.

Every axis has a segment size: 1 where it is kept, its whole extent where it is aggregated, and
something between where it is kept by segments (channels in groups, observations in batches).
The element at index i belongs to the statistics at index ``i // segment``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from normcli.domain.layout import parse_layout
from normcli.domain.norm_spec import NormSpec
from normcli.errors import InputError, UsageError


@dataclass(frozen=True)
class Geometry:
    """Axes of a `NormSpec` with the extents of one array.

    Attributes
    ----------
    shape : tuple of int
        Extents of the array.
    kept : tuple of int
        Axes with statistics of their own, ascending; the axes of every statistics array.
    scale_axes : tuple of int
        Axes of scale and bias, ascending.
    segments : tuple of int
        One segment size for each axis of the array.
    """

    shape: tuple[int, ...]
    kept: tuple[int, ...]
    scale_axes: tuple[int, ...]
    segments: tuple[int, ...]

    @property
    def aggregated(self) -> tuple[int, ...]:
        """Axes that are summed over as a whole."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.kept)

    @property
    def divided_axis(self) -> int | None:
        """The kept axis that is cut into segments of more than one element, or None."""
        for axis in self.kept:
            if self.segments[axis] > 1:
                return axis
        return None

    @property
    def statistics_shape(self) -> tuple[int, ...]:
        """Extents of the statistics: one entry for each segment of each kept axis."""
        return tuple(-(-self.shape[axis] // self.segments[axis]) for axis in self.kept)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Extents of scale and bias."""
        return tuple(self.shape[axis] for axis in self.scale_axes)

    @property
    def group_count(self) -> int:
        """Number of groups, each with a mean and a variance of its own."""
        return prod(self.statistics_shape)

    @property
    def group_size(self) -> int:
        """Elements of one (whole) group."""
        return prod(min(s, n) for s, n in zip(self.segments, self.shape, strict=True))

    def region(self, start: tuple[int, ...], stop: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the part of the statistics that a box of the array touches."""
        return tuple(
            slice(start[axis] // self.segments[axis], -(-stop[axis] // self.segments[axis]))
            for axis in self.kept
        )

    def scale_region(self, start: tuple[int, ...], stop: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the part of scale and bias that a box of the array touches."""
        return tuple(slice(start[axis], stop[axis]) for axis in self.scale_axes)


def bind(spec: NormSpec, shape: tuple[int, ...], name: str = "The array") -> Geometry:
    """Return the geometry of `spec` on an array of extents `shape`, which errors call `name`.

    Raises
    ------
    UsageError
        When the rank differs, or the groups do not divide their axis.
    InputError
        When the array is empty or an aggregated axis has no elements.
    """
    if len(shape) != spec.layout.ndim:
        one = spec.layout.of_example()
        example = len(shape) == one.ndim and one != spec.layout and spec.per_dataset
        raise UsageError(
            f"The layout {spec.layout} is for {spec.layout.ndim} axes, "
            f"but the array has {len(shape)} (shape {shape}).",
            "Give another --layout."
            + (f" One observation without its batch axis is --layout {one}." if example else ""),
        )
    for axis, extent in enumerate(shape):
        if extent == 0:
            raise InputError(
                f"{name} is empty: axis {axis} ({spec.layout.axis_label(axis)}) of shape "
                f"{shape} has no elements.",
                "There is nothing to normalize.",
            )
    segments = [1 if axis in spec.kept else extent for axis, extent in enumerate(shape)]
    divided = spec.divided_axis
    if divided is not None:
        segments[divided] = _segment_size(spec, divided, shape[divided])
    return Geometry(tuple(shape), spec.kept, spec.scale_axes, tuple(segments))


def bind_example(spec: NormSpec, shape: tuple[int, ...]) -> Geometry:
    """Return the geometry of `spec` on one observation, whose extents are `shape`.

    The statistics are those of the dataset; only the batch axis is missing.

    Raises
    ------
    UsageError, InputError
        As `bind`.
    """
    batch = spec.layout.batch_axis
    assert batch is not None
    whole = bind(spec, (*shape[:batch], 1, *shape[batch:]))

    def without(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(axis - (axis > batch) for axis in axes if axis != batch)

    segments = (*whole.segments[:batch], *whole.segments[batch + 1 :])
    return Geometry(tuple(shape), without(whole.kept), without(whole.scale_axes), segments)


def is_example(spec: NormSpec, layout: str | None, ndim: int) -> bool:
    """Whether a user says that an array is one observation of a dataset, without its batch axis.

    It is not told by the rank alone, which a forgotten axis changes too.

    Parameters
    ----------
    spec : NormSpec
        That of the dataset.
    layout : str or None
        What the user wrote.
    ndim : int
        Number of axes of the array.

    Raises
    ------
    UsageError
        When the layout is malformed, or of another number of axes.
    """
    batch = spec.layout.batch_axis
    if layout is None or batch is None or batch in spec.kept or ndim != spec.layout.ndim - 1:
        return False
    return parse_layout(layout, ndim).letters == spec.layout.of_example().letters


def _segment_size(spec: NormSpec, axis: int, extent: int) -> int:
    if spec.groups is None:
        size = spec.segment_size or 1
        if size < 1:
            raise UsageError(f"The batch size is {size}; it must be 1 or more.")
        return min(size, extent)
    if spec.groups < 1 or extent % spec.groups:
        raise UsageError(
            f"{spec.groups} groups do not divide axis {axis} "
            f"({spec.layout.axis_label(axis)}) of {extent} elements.",
            f"--groups must divide {extent}.",
        )
    return extent // spec.groups
