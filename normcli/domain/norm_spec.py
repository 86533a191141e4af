"""What is normalized over what: the one value behind all modes.

Aggregated axes are summed over, kept axes each keep their own statistics, scale axes carry their
own scale and bias. A mode is only a preset of these; past `NormSpec` nobody asks for the mode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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
        require_choice("method", self.method, METHODS)
        require_choice("nonfinite", self.nonfinite, NONFINITE)
        require_choice("epsilon placement", self.placement, PLACEMENTS)
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


def require_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of those allowed."""
    if value not in allowed:
        raise UsageError(f"There is no {what} {value!r}.", f"Choose from {', '.join(allowed)}.")
