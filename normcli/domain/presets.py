"""From the options of a user to a `NormSpec`: modes are presets of axes, conventions of numbers."""

from __future__ import annotations

import numpy as np

from normcli.domain.axes import parse_axes, parse_levels
from normcli.domain.conventions import Convention
from normcli.domain.conventions import convention as find_convention
from normcli.domain.dtypes import is_bfloat16, is_float
from normcli.domain.layout import Layout
from normcli.domain.methods import DIVISORS
from normcli.domain.norm_spec import MODES, NormSpec, require_choice
from normcli.errors import UsageError


def make_spec(
    layout: Layout,
    dtype: np.dtype,
    *,
    mode: str = "batch",
    method: str = "zscore",
    aggregate: str | None = None,
    scale_axes: str | None = None,
    wolfram_levels: bool = False,
    groups: int | None = None,
    group_axis: str | None = None,
    epsilon: float | None = None,
    placement: str | None = None,
    ddof: int = 0,
    nonfinite: str = "omit",
    convention: str | None = None,
    value_range: tuple[float, ...] | None = None,
    quantiles: tuple[float, ...] | None = None,
    p: float | None = None,
) -> NormSpec:
    """Return the spec that a user's options mean for arrays of this layout and type.

    Parameters
    ----------
    layout : Layout
        Meaning of each axis.
    dtype : numpy.dtype
        Type of the input; PyTorch's RMS epsilon depends on it.
    mode, method, aggregate, scale_axes, wolfram_levels, groups, group_axis
        As on the command line.
    epsilon : float, optional
        None takes the default of the convention.
    value_range : tuple of float, optional
        What minimum and maximum become with the method ``minmax``; None takes 0 and 1.
    quantiles : tuple of float, optional
        Lower and upper quantile of the method ``robust``, in percent; None takes 25 and 75.
    p : float, optional
        The norm of the method ``lp``; None takes 2.
    placement, ddof, nonfinite, convention
        As on the command line.

    Raises
    ------
    UsageError
        When options contradict each other or the layout.
    """
    require_choice("mode", mode, MODES)
    system = find_convention(convention)
    parse = parse_levels if wolfram_levels else parse_axes
    if aggregate is not None and mode not in ("layer", "custom"):
        raise UsageError(
            f"--aggregate does not go with --mode {mode}, which sets its own axes.",
            "Use --mode custom.",
        )
    if (groups is None) != (mode != "group"):
        raise UsageError(
            "--mode group needs --groups." if mode == "group" else "--groups needs --mode group.",
            "For example: --mode group --groups 8",
        )
    if group_axis is not None and mode != "group":
        raise UsageError("--group-axis needs --mode group.", "Add --mode group --groups G.")
    if wolfram_levels and aggregate is None and scale_axes is None:
        raise UsageError(
            "--wolfram-levels tells how --aggregate and --scale-axes are read; neither is given.",
            'For example: --mode custom --aggregate "2;;All" --wolfram-levels',
        )
    everything = tuple(range(layout.ndim))
    batch, channel = layout.batch_axis, layout.channel_axis
    divided = _group_axis(layout, group_axis) if mode == "group" else None
    if mode == "custom":
        if aggregate is None:
            raise UsageError("--mode custom needs --aggregate.", "For example: --aggregate HW")
        aggregated = parse(aggregate, layout)
    elif mode == "layer":
        aggregated = (
            parse(aggregate, layout) if aggregate else _layer_axes(system.layer_axes, layout)
        )
    else:
        own = {
            "batch": {channel},
            "instance": {batch, channel},
            "group": {batch, divided},
        }[mode]
        aggregated = tuple(axis for axis in everything if axis not in own)
    kept = tuple(axis for axis in everything if axis not in aggregated)
    if value_range is None and method == "minmax":
        value_range = (0.0, 1.0)
    if quantiles is None and method == "robust":
        quantiles = (25.0, 75.0)
    if p is None and method == "lp":
        p = 2.0
    return NormSpec(
        layout=layout,
        mode=mode,
        method=method,
        aggregated=aggregated,
        kept=kept,
        scale_axes=_scale_axes(scale_axes, mode, layout, aggregated, divided, parse),
        divided_axis=divided,
        groups=groups,
        epsilon=_epsilon(epsilon, method, dtype, system),
        epsilon_given=epsilon is not None or convention is not None,
        placement=placement or ("floor" if method == "lp" else "inside"),
        ddof=ddof,
        nonfinite=nonfinite,
        convention=convention,
        range=value_range,
        quantiles=quantiles,
        p=p,
    )


def _scale_axes(text, mode, layout, aggregated, divided, parse):  # type: ignore[no-untyped-def]
    channel, batch = layout.channel_axis, layout.batch_axis
    complement = tuple(a for a in range(layout.ndim) if a not in aggregated and a != batch)
    if text is None:
        if mode == "layer":
            return aggregated
        if mode == "group":
            return (divided,)
        if mode == "custom":
            return complement
        return () if channel is None else (channel,)
    word = text.strip().lower()
    if word == "same":
        return aggregated
    if word == "complement":
        return complement
    return parse(text, layout)


def _group_axis(layout: Layout, text: str | None) -> int:
    if text is None:
        if layout.channel_axis is None:
            raise UsageError(
                f"--mode group divides the channels, but the layout {layout} has no C.",
                "Name the axis with --group-axis.",
            )
        return layout.channel_axis
    axes = parse_axes(text, layout)
    if len(axes) != 1:
        raise UsageError(f"--group-axis {text!r} names {len(axes)} axes; it takes one.")
    if axes[0] == layout.batch_axis:
        raise UsageError("--group-axis names the batch axis, whose observations are not grouped.")
    return axes[0]


def _layer_axes(rule: str, layout: Layout) -> tuple[int, ...]:
    batch = layout.batch_axis
    example = [axis for axis in range(layout.ndim) if axis != batch]
    if rule == "example" and len(example) > 1:
        return tuple(example[1:])
    if rule == "features":
        # MATLAB's "auto": channel and space for images, channel alone for vectors and sequences.
        axes = [axis for axis in example if layout.letters[axis] not in "TU"]
        if axes:
            return tuple(axes)
    return (layout.ndim - 1,)


def _epsilon(given: float | None, method: str, dtype: np.dtype, system: Convention) -> float:
    if given is not None:
        return given
    if method == "lp":
        return system.norm_epsilon
    if method in DIVISORS:
        return 0.0
    if method != "rms":
        return system.epsilon
    if system.rms_epsilon is not None:
        return system.rms_epsilon
    # torch.nn.functional.rms_norm: machine epsilon of the type it computes in, which is float32
    # for the half types.
    wide = is_float(dtype) and not is_bfloat16(dtype) and dtype.itemsize == 8
    return float(np.finfo(np.float64 if wide else np.float32).eps)
