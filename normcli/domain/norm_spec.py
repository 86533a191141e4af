"""What is normalized over what: the one value behind all modes.

Aggregated axes are summed over, kept axes each keep their own statistics, scale axes carry their
own scale and bias. A mode is only a preset of these; past `NormSpec` nobody asks for the mode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from normcli.domain.axes import parse_axes, parse_levels
from normcli.domain.conventions import Convention
from normcli.domain.conventions import convention as find_convention
from normcli.domain.dtypes import is_bfloat16, is_float
from normcli.domain.layout import Layout
from normcli.domain.methods import DIVISORS, METHODS, require_settings, require_terms
from normcli.errors import UsageError

MODES = ("batch", "instance", "layer", "group", "custom")
NONFINITE = ("omit", "propagate", "error")
PLACEMENTS = ("inside", "outside", "floor")


@dataclass(frozen=True)
class NormSpec:
    """The axes and the formula of a normalization, bound to a rank but not to a shape.

    Attributes
    ----------
    layout : Layout
        Meaning of each axis.
    mode : str
        The preset it came from; for people, never for decisions.
    method : {"zscore", "rms", "center", "std", "minmax", "maxabs", "robust", "lp"}
        What is subtracted, and what is divided by.
    aggregated, kept : tuple of int
        A partition of the axes. A kept axis that is divided (`divided_axis`) keeps one entry
        per segment and aggregates within it.
    scale_axes : tuple of int
        Axes along which scale and bias vary; independent of the two above.
    divided_axis : int or None
        Kept axis that is cut into segments: channels into groups, observations into batches.
    groups : int or None
        Number of equal segments of `divided_axis`; None where `segment_size` is given.
    segment_size : int or None
        Elements of `divided_axis` in one segment; the last one may be short.
    epsilon : float
        Added to the variance, or as `placement` says; 0 where extremes or quantiles are divided
        by; the least norm that the method ``lp`` divides by.
    epsilon_given : bool
        Whether the user chose epsilon, directly or by a convention.
    placement : {"inside", "outside", "floor"}
        ``sqrt(var + eps)``, ``sqrt(var) + eps`` or ``max(sqrt(var), eps)``.
    ddof : {0, 1}
        The divisor of the variance is n - ddof.
    nonfinite : {"omit", "propagate", "error"}
        What NaN and infinities do.
    convention : str or None
        The system whose defaults were taken.
    range : tuple of float or None
        What minimum and maximum of a group become, with the method ``minmax`` alone.
    quantiles : tuple of float or None
        Lower and upper quantile in percent, with the method ``robust`` alone.
    p : float or None
        Which norm the method ``lp`` divides by, 1 or more; infinity is the largest magnitude.
    """

    layout: Layout
    mode: str
    method: str
    aggregated: tuple[int, ...]
    kept: tuple[int, ...]
    scale_axes: tuple[int, ...]
    divided_axis: int | None = None
    groups: int | None = None
    segment_size: int | None = None
    epsilon: float = 1e-5
    epsilon_given: bool = False
    placement: str = "inside"
    ddof: int = 0
    nonfinite: str = "omit"
    convention: str | None = None
    range: tuple[float, ...] | None = None
    quantiles: tuple[float, ...] | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        if sorted(self.aggregated + self.kept) != list(range(self.layout.ndim)):
            raise UsageError(
                f"Axes {self.aggregated} and {self.kept} are no partition of {self.layout}."
            )
        if not self.aggregated and self.divided_axis is None:
            raise UsageError(
                f"Mode {self.mode} with layout {self.layout} aggregates no axis: "
                "every element would be its own group.",
                "Name the axes with --aggregate, or give another --layout.",
            )
        _require("method", self.method, METHODS)
        _require("nonfinite", self.nonfinite, NONFINITE)
        _require("epsilon placement", self.placement, PLACEMENTS)
        if not (np.isfinite(self.epsilon) and self.epsilon >= 0):
            raise UsageError(
                f"Epsilon is {self.epsilon!r}; it must be a finite number, 0 or more.",
                "--epsilon 0 divides by the exact standard deviation.",
            )
        if self.convention == "matlab" and self.epsilon == 0 and not self.divides_by:
            raise UsageError(
                "Epsilon is 0; --convention matlab asks for one above 0, as MATLAB does.",
                "Leave --convention out to divide by the exact standard deviation.",
            )
        if self.ddof not in (0, 1):
            raise UsageError(f"ddof is {self.ddof}; it must be 0 or 1.")
        require_settings(
            self.method, {"range": self.range, "quantiles": self.quantiles, "p": self.p}
        )
        require_terms(self.method, self.epsilon, self.placement, self.ddof)

    @property
    def divides_by(self) -> str:
        """What is divided by, in words, where it is no deviation; empty where it is one."""
        return DIVISORS.get(self.method, "")

    @property
    def levels(self) -> tuple[float, float]:
        """Lower and upper quantile of the method ``robust``, from 0 to 1."""
        assert self.quantiles is not None
        return self.quantiles[0] / 100, self.quantiles[1] / 100

    @property
    def offset(self) -> float:
        """What is added to every normalized value, before scale and bias."""
        return 0.0 if self.range is None else self.range[0]

    @property
    def centered(self) -> bool:
        """Whether the mean is subtracted."""
        return self.method in ("zscore", "center")

    @property
    def per_dataset(self) -> bool:
        """Whether statistics belong to the dataset, not to each observation.

        They do where the batch axis is aggregated. Without a batch axis the whole array is one
        observation of a dataset, and only the mode ``batch`` speaks of the dataset.
        """
        batch = self.layout.batch_axis
        return batch in self.aggregated if batch is not None else self.mode == "batch"

    def of_dataset(self) -> NormSpec:
        """Return this spec with statistics of the dataset, not of each observation.

        This is how PyTorch's InstanceNorm evaluates: by one running mean and variance a channel.

        Raises
        ------
        UsageError
            When there is no batch axis that could be aggregated.
        """
        batch = self.layout.batch_axis
        if batch is None:
            raise UsageError(
                f"Moving statistics need a batch axis; the layout {self.layout} has none.",
                "Give a --layout with N.",
            )
        return replace(
            self,
            aggregated=tuple(sorted({*self.aggregated, batch})),
            kept=tuple(axis for axis in self.kept if axis != batch),
        )

    def by_batches(self, batch_size: int) -> NormSpec:
        """Return this spec with statistics of each run of `batch_size` observations.

        Raises
        ------
        UsageError
            When statistics do not belong to the dataset, or there is no batch axis.
        """
        batch = self.layout.batch_axis
        if batch is None or batch not in self.aggregated:
            instances = self.mode == "instance"
            raise UsageError(
                f"Batches need a batch axis that is aggregated; mode {self.mode} with layout "
                f"{self.layout} has none.",
                "Moving statistics and --training belong to --mode batch and a layout with N"
                + ("; --convention torch keeps those of instances." if instances else "."),
            )
        return replace(
            self,
            aggregated=tuple(axis for axis in self.aggregated if axis != batch),
            kept=tuple(sorted((*self.kept, batch))),
            divided_axis=batch,
            segment_size=batch_size,
        )


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
    _require("mode", mode, MODES)
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


def _require(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"There is no {what} {value!r}.", f"Choose from {', '.join(allowed)}.")
