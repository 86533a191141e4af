"""What a run did, for the summary on the screen and for ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from normcli.domain.constancy import constant_groups
from normcli.domain.losses import NO_LOSSES, Losses
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments

NAMED_GROUPS = 5


@dataclass(frozen=True)
class Tally:
    """Counts over groups, to which the groups of another region can be added.

    Attributes
    ----------
    groups : int
        Groups in all.
    constant : int
        Groups that hold one value only.
    constant_names, empty_names, damped_names : tuple of str
        The first of each by name, such as ``C=3``.
    empty : int
        Groups without a finite value.
    damped : int
        Groups that vary, yet have an epsilon above 1 % of their variance.
    count, nonfinite : int
        Finite and non-finite elements.
    flat : int
        Groups that vary, yet have no spread between their quantiles.
    flat_names : tuple of str
        The first of them by name.
    """

    groups: int = 0
    constant: int = 0
    constant_names: tuple[str, ...] = ()
    empty: int = 0
    empty_names: tuple[str, ...] = ()
    damped: int = 0
    damped_names: tuple[str, ...] = ()
    count: int = 0
    nonfinite: int = 0
    flat: int = 0
    flat_names: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.groups + other.groups,
            self.constant + other.constant,
            (self.constant_names + other.constant_names)[:NAMED_GROUPS],
            self.empty + other.empty,
            (self.empty_names + other.empty_names)[:NAMED_GROUPS],
            self.damped + other.damped,
            (self.damped_names + other.damped_names)[:NAMED_GROUPS],
            self.count + other.count,
            self.nonfinite + other.nonfinite,
            self.flat + other.flat,
            (self.flat_names + other.flat_names)[:NAMED_GROUPS],
        )


def tally(
    moments: Moments, spec: NormSpec, dtype: np.dtype, index: tuple[slice, ...] | None = None
) -> Tally:
    """Count the groups of one region.

    Parameters
    ----------
    moments : Moments
        Moments of the region.
    spec : NormSpec
        Names the axes, and decides what epsilon does.
    dtype : numpy.dtype
        Type of the data, which decides what is constant.
    index : tuple of slice, optional
        Place of the region in the statistics; None for all of them.
    """
    origin = (0,) * len(moments.shape) if index is None else tuple(s.start for s in index)
    constant = constant_groups(moments, dtype)
    empty = moments.count == 0
    damped = damped_groups(spec, moments.variance(spec.ddof), constant)
    flat = np.zeros(constant.shape, bool)
    if isinstance(moments, QuantileMoments):
        flat = ~constant & (moments.spread == 0)
    return Tally(
        constant.size,
        int(constant.sum()),
        group_names(spec, constant, origin),
        int(empty.sum()),
        group_names(spec, empty, origin),
        int(damped.sum()),
        group_names(spec, damped, origin),
        int(moments.count.sum()),
        int(moments.nonfinite.sum()),
        int(flat.sum()),
        group_names(spec, flat, origin),
    )


def damped_groups(spec: NormSpec, variance: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Return which groups vary, yet have an epsilon above 1 % of their variance."""
    if spec.method not in ("zscore", "std"):
        return np.zeros(variance.shape, bool)
    weight = spec.epsilon if spec.placement == "inside" else spec.epsilon**2
    with np.errstate(invalid="ignore"):
        return ~constant & (variance > 0) & (weight > 0.01 * variance)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of one fit, apply, learn or merge.

    Attributes
    ----------
    command : {"fit", "apply", "learn", "merge"}
        What was done.
    inputs : tuple of str
        Names of the inputs.
    output, stats : str or None
        What was written: the array, and the sidecar.
    shape : tuple of int
        Extents of the input.
    dtype, output_dtype : str or None
        Element types.
    passes : int
        Walks over the input.
    tally : Tally
        Counts over the groups, as far as they are known.
    written_mean, written_std : float or None
        Mean and standard deviation of all finite elements that were written.
    written_nonfinite : int or None
        NaN and infinities that were written.
    losses : Losses
        Results that the type of the output could not hold.
    chunks, missing_chunks : int
        Chunks of the input that its format may leave out, and those that are not stored.
    bytes_read, bytes_written : int
        Decoded bytes, over all passes.
    seconds : float
        Wall time.
    workers : int
        Blocks in flight at once.
    kernel : str
        Which loops were used.
    learned : mapping, optional
        What a learning run found: cells, pairs, losses; None for the others.
    """

    command: str
    inputs: tuple[str, ...]
    output: str | None = None
    stats: str | None = None
    shape: tuple[int, ...]
    dtype: str
    output_dtype: str | None = None
    passes: int
    tally: Tally
    written_mean: float | None = None
    written_std: float | None = None
    written_nonfinite: int | None = None
    losses: Losses = NO_LOSSES
    chunks: int = 0
    missing_chunks: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float
    workers: int
    kernel: str
    learned: Mapping[str, Any] | None = None

    @property
    def bytes_per_second(self) -> float:
        """Decoded bytes read and written over the wall time."""
        return (self.bytes_read + self.bytes_written) / max(self.seconds, 1e-9)

    def as_dict(self) -> Mapping[str, Any]:
        """Return the report as values that JSON can hold."""
        values = asdict(self)
        groups = values.pop("tally")
        if self.learned is None:
            del values["learned"]
        for name in ("constant", "empty", "damped", "flat"):
            groups[f"{name}_groups"] = groups.pop(name)
        return {**values, **groups, "bytes_per_second": self.bytes_per_second}


def group_names(spec: NormSpec, chosen: np.ndarray, origin: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the first few chosen groups, such as ``C=3``.

    `origin` is the place of the first group in the statistics.
    """
    names = []
    for flat in np.flatnonzero(chosen)[:NAMED_GROUPS]:
        index = np.unravel_index(flat, chosen.shape)
        parts = [
            f"{_label(spec, axis)}={int(i) + o}"
            for axis, i, o in zip(spec.kept, index, origin, strict=True)
        ]
        names.append(", ".join(parts) or "the whole array")
    return tuple(names)


def _label(spec: NormSpec, axis: int) -> str:
    label = spec.layout.axis_label(axis)
    if axis != spec.divided_axis:
        return label
    return f"group of {label}" if spec.groups is not None else f"batch of {label}"
