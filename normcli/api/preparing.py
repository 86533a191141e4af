"""From names to objects: sources, layouts, specs and geometries."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import normcli
from normcli.api.options import NormOptions
from normcli.arrays.access import ArraySource
from normcli.arrays.rules import InputRules
from normcli.domain.array_info import ArrayInfo
from normcli.domain.axes import parse_axes, parse_levels
from normcli.domain.geometry import Geometry
from normcli.domain.layout import Layout, infer_layout, parse_layout
from normcli.domain.norm_spec import NormSpec
from normcli.domain.presets import make_spec
from normcli.domain.quantile_sketches import library
from normcli.domain.statistics import SourceDescription
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError
from normcli.planning.plan import Pass
from normcli.redaction import redacted
from normcli.retrying import reopened


def resolve_layout(options: NormOptions, source: ArraySource, observer: Observer) -> Layout:
    """Return the layout that the user gave, or the one that the file suggests."""
    info = source.info
    if info.ndim == 0:
        raise InputError(f"{source.name} is a single number (no axes).", "Give an array.")
    if options.layout is not None:
        return parse_layout(options.layout, info.ndim, info.dims)
    layout, reason = infer_layout(info.ndim, info.dims)
    observer.note(f"layout {layout} for {source.name} {reason}; --layout sets another")
    return layout


def new_spec(options: NormOptions, layout: Layout, info: ArrayInfo) -> NormSpec:
    """Return the spec that the options mean, with defaults for what was not given."""
    return make_spec(
        layout,
        info.dtype,
        mode=options.mode or "batch",
        method=options.method or "zscore",
        aggregate=options.aggregate,
        scale_axes=options.scale_axes,
        wolfram_levels=options.wolfram_levels,
        groups=options.groups,
        group_axis=options.group_axis,
        epsilon=options.epsilon,
        placement=options.epsilon_placement,
        ddof=0 if options.ddof is None else options.ddof,
        nonfinite=options.nonfinite or "omit",
        convention=options.convention,
        value_range=None if options.range is None else _bounds(options.range),
        quantiles=None if options.quantiles is None else _bounds(options.quantiles),
        p=None if options.p is None else float(options.p),
    )


def fitted_spec(options: NormOptions, spec: NormSpec) -> NormSpec:
    """Return the spec of statistics, with what an apply may change.

    Epsilon, its placement, the range and the scale axes only concern the application; everything
    else was decided by the fit.

    Raises
    ------
    UsageError
        When an option contradicts the fit.
    """
    fixed = {
        "mode": spec.mode,
        "method": spec.method,
        "groups": spec.groups,
        "ddof": spec.ddof,
        "convention": spec.convention,
        "nonfinite": spec.nonfinite,
        "quantiles": spec.quantiles,
        "p": spec.p,
    }
    for name, fitted in fixed.items():
        given = getattr(options, name)
        if name == "quantiles" and given is not None:
            given = _bounds(given)
        if given is not None and given != fitted:
            raise UsageError(
                f"--{name} {given} contradicts the statistics, which were fitted with "
                f"{name} {fitted}.",
                f"Leave --{name} out, or fit again.",
            )
    layout = spec.layout
    if options.layout is not None:
        given_layout = parse_layout(options.layout, layout.ndim)
        if given_layout.letters != layout.letters:
            raise UsageError(
                f"--layout {options.layout} contradicts the statistics, which were fitted with "
                f"layout {layout}.",
                "Leave --layout out, or fit again.",
            )
    if options.aggregate is not None:
        axes = (parse_levels if options.wolfram_levels else parse_axes)(options.aggregate, layout)
        if axes != spec.aggregated:
            raise UsageError(
                f"--aggregate {options.aggregate} contradicts the statistics, which aggregate "
                f"axes {list(spec.aggregated)}.",
                "Leave --aggregate out, or fit again.",
            )
    if options.group_axis is not None:
        axes = parse_axes(options.group_axis, layout)
        if axes != (spec.divided_axis,):
            divided = "none" if spec.divided_axis is None else f"axis {spec.divided_axis}"
            raise UsageError(
                f"--group-axis {options.group_axis} contradicts the statistics, whose groups "
                f"divide {divided}.",
                "Leave --group-axis out, or fit again.",
            )
    if options.epsilon is not None:
        spec = replace(spec, epsilon=options.epsilon, epsilon_given=True)
    if options.epsilon_placement is not None:
        spec = replace(spec, placement=options.epsilon_placement)
    if options.range is not None:
        spec = replace(spec, range=_bounds(options.range))
    if options.scale_axes is not None:
        spec = replace(spec, scale_axes=_scale_axes(options, spec))
    return spec


def require_sketches(spec: NormSpec, geometry: Geometry, work: Pass, merged: bool) -> None:
    """Refuse quantiles of groups in pieces where the package that sketches them is missing.

    Raises
    ------
    InputError
        Before anything is read.
    """
    pieces = any(work.grid.counts[axis] > 1 for axis in geometry.aggregated)
    if spec.quantiles is not None and work.kind == "measure" and (merged or pieces):
        library()


def _bounds(given: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(bound) for bound in given)


def _scale_axes(options: NormOptions, spec: NormSpec) -> tuple[int, ...]:
    assert options.scale_axes is not None
    word = options.scale_axes.strip().lower()
    if word == "same":
        return spec.aggregated
    if word == "complement":
        return tuple(axis for axis in spec.kept if axis != spec.layout.batch_axis)
    parse = parse_levels if options.wolfram_levels else parse_axes
    return parse(options.scale_axes, spec.layout)


def check_expectations(options: NormOptions, source: ArraySource, layout: Layout) -> None:
    """Compare the array with what the user asserts of it.

    Raises
    ------
    InputError
        When the number of channels or the shape differ.
    """
    shape = source.info.shape
    if options.num_channels is not None:
        axis = layout.channel_axis
        if axis is None:
            raise UsageError(f"--num-channels needs a layout with C, but it is {layout}.")
        if shape[axis] != options.num_channels:
            raise InputError(
                f"{source.name} has {shape[axis]} channels (axis {axis} of shape {shape}), "
                f"but --num-channels says {options.num_channels}."
            )
    if options.expect_shape is not None:
        words = [word.strip() for word in options.expect_shape.split(",")]
        if not all(re.fullmatch(r"\*|[0-9]{1,18}", word) for word in words):
            raise UsageError(
                f"--expect-shape {options.expect_shape!r} is no shape.", "Like '*,3,224,224'."
            )
        fits = len(words) == len(shape) and all(
            word == "*" or int(word) == n for word, n in zip(words, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{source.name} has shape {shape}, but --expect-shape says {options.expect_shape}."
            )


def batch_sizes(given: int | tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the batch sizes as a tuple of positive numbers, or None.

    Raises
    ------
    UsageError
        When one is below 1.
    """
    if given is None:
        return None
    sizes = (given,) if isinstance(given, int) else tuple(given)
    if not sizes or min(sizes) < 1:
        spelled = ",".join(map(str, sizes))
        raise UsageError(f"--batch-size {spelled} must be 1 or more.")
    return sizes


def input_rules(options: NormOptions) -> InputRules:
    """Return how far inputs may reach, and what becomes of chunks that are not stored.

    Raises
    ------
    UsageError
        When `missing` is none of its words.
    """
    if options.missing not in (None, "fill", "omit", "error"):
        raise UsageError(f"--missing {options.missing} is none of fill, omit and error.")
    return InputRules(
        options.allow_external_refs, options.allow_symlinks, options.missing, options.isolate
    )


def warn_of_input(source: ArraySource, observer: Observer) -> None:
    """Tell of chunks that are not stored, and of what else is odd."""
    for remark in source.remarks:
        observer.warn(remark)
    missing = source.missing
    if not missing.missing:
        return
    what = "are read as " + str(missing.fill)
    other = "omit leaves them out of the statistics"
    if missing.omitted:
        what = "are left out of the statistics"
        other = "fill reads them as the fill value"
    observer.warn(
        f"{source.name}: {missing.missing} of {missing.total} chunks are not stored and {what}.",
        f"--missing {other}, --missing error refuses them.",
    )


def describe(source: ArraySource) -> SourceDescription:
    """Return what identifies the data behind a source."""
    info = source.info
    missing = source.missing
    return SourceDescription(
        info.shape,
        info.dtype,
        info.dims,
        source.identity(),
        missing.total,
        missing.missing,
        units=info.units,
    )


def input_state(source: ArraySource) -> tuple[tuple[str, Any, Any], ...]:
    """Return path, identity and inode of each input, by which a change of it is noticed."""
    states = []
    for entry in reopened(source.identity):
        path = str(entry["path"])
        inode = os.stat(path).st_ino if os.path.exists(path) else None
        states.append((path, entry, inode))
    return tuple(states)


def require_unchanged(source: ArraySource, before: tuple[tuple[str, Any, Any], ...]) -> None:
    """Refuse results of inputs that were written to, cut or replaced while they were read.

    Parameters
    ----------
    source : ArraySource
        The input.
    before : tuple
        Its `input_state` when the run began.

    Raises
    ------
    InputError
        When the size, the time of the last write, the sampled content or the inode differs.
    """
    for old, new in zip(before, input_state(source), strict=True):
        if old != new:
            raise InputError(
                f"{old[0]} changed while it was read, so the result would be of neither.",
                "Do not change an input while normcli reads it; then run the same command again.",
            )


def provenance() -> dict[str, Any]:
    """Return who made this, with what command, and when."""
    command = [redacted(arg if arg.isprintable() else repr(arg)) for arg in sys.argv]
    return {
        "version": normcli.__version__,
        # Quoted, so that it can be given again as it stands.
        "command": shlex.join(["normcli", *command[1:]]) if command else "",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
