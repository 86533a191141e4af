"""A fitted normalization as frameworks keep it: one set of numbers for each channel.

``y = (x - mean) / sqrt(variance + epsilon) * scale + bias`` along one axis is what batch
normalization layers, scalers and CMVN files hold. Other methods and placements of epsilon are
translated into it where the numbers stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from normcli.domain.conventions import has_unit_constants
from normcli.domain.moment_kinds import plain
from normcli.domain.norm_spec import NormSpec
from normcli.domain.normalizers import fitted_normalizer
from normcli.domain.statistics import Statistics
from normcli.domain.transform import normalizer
from normcli.domain.usability import require_resolved
from normcli.domain.wide_moments import SQUARE_ROOT_OF_SMALLEST, WideMoments
from normcli.errors import DataPolicyError

# Rounding to float32 may move a normalized value by this many standard deviations.
MOST_ROUNDING = 1e-3
WORTH_A_WORD = 1e-6


@dataclass(frozen=True)
class ChannelNorm:
    """Numbers of each channel.

    Attributes
    ----------
    mean, variance : ndarray of float64
        One entry for each channel.
    epsilon : float
        Added to the variance inside of the root.
    scale, bias : ndarray of float64 or None
        An absent one is None, which is not the same as ones or zeros.
    momentum : float or None
        Weight of the OLD value, where the statistics are moving ones and it is known.
    cumulative : bool
        Whether the moving statistics are the plain average of all batches.
    batches : int
        Batches folded into moving statistics.
    divisor : {"biased", "unbiased", "unknown"}
        Whether the variance is divided by n or by n - 1.
    count : ndarray of int64 or None
        Elements behind each channel.
    constant : ndarray of bool or None
        Channels whose data were constant: they become their bias.
    """

    mean: np.ndarray
    variance: np.ndarray
    epsilon: float
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    momentum: float | None = None
    cumulative: bool = False
    batches: int = 0
    divisor: str = "biased"
    count: np.ndarray | None = None
    constant: np.ndarray | None = None

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.mean.size)

    @property
    def deviation(self) -> np.ndarray:
        """What is divided by, before the scale."""
        return np.sqrt(self.variance + self.epsilon)

    def folded(self, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Return shift and divisor of each channel: ``y = (x - shift) / divisor``.

        Raises
        ------
        DataPolicyError
            When a scale is 0, which no divisor does.
        """
        constant = np.zeros(self.mean.shape, bool) if self.constant is None else self.constant
        scale = np.ones_like(self.mean) if self.scale is None else self.scale
        lost = int(np.count_nonzero((scale == 0) & ~constant))
        if lost:
            raise DataPolicyError(
                f"{lost} of {scale.size} scales are 0; {what} divides, and no divisor does that.",
                "Convert to torch, keras or onnx, which have a scale.",
            )
        divisor = np.where(constant, 1.0, self.deviation / np.where(constant, 1.0, scale))
        bias = np.zeros_like(self.mean) if self.bias is None else self.bias
        return self.mean - bias * divisor, divisor

    def with_scale(self) -> ChannelNorm:
        """Return the same with a scale that makes constant channels 0, for layers that have one."""
        if self.constant is None or not self.constant.any():
            return self
        scale = np.ones_like(self.mean) if self.scale is None else self.scale
        # A variance and an epsilon of 0 would make that 0 times infinity.
        empty = self.constant & (self.variance + self.epsilon == 0)
        return replace(
            self,
            scale=np.where(self.constant, 0.0, scale),
            variance=np.where(empty, 1.0, self.variance),
        )

    def rounding(self, dtype: np.dtype) -> float:
        """Return how far `dtype` moves a normalized value near the mean, in standard deviations.

        Raises
        ------
        DataPolicyError
            When that is too far, or a number leaves the range of `dtype`.
        """
        with np.errstate(over="ignore", under="ignore"):
            mean = self.mean.astype(dtype).astype(np.float64)
            power = self.variance.astype(dtype).astype(np.float64) + self.epsilon
        exact = self.variance + self.epsilon
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.abs(mean - self.mean) / np.sqrt(exact)
            stretched = np.abs(np.sqrt(power / exact) - 1)
        worst = float(np.max(np.maximum(moved, stretched), initial=0.0))
        if not worst <= MOST_ROUNDING:
            raise DataPolicyError(
                f"In {dtype} the mean and the variance would move normalized values by "
                f"{worst:.2g} standard deviations.",
                "--dtype float64 keeps them.",
            )
        return worst


def channel_norm(
    statistics: Statistics, estimate: str | None = None, divisor: str | None = None
) -> ChannelNorm:
    """Return what statistics mean for each channel, with the numbers that an apply gives.

    Parameters
    ----------
    statistics : Statistics
        Of a dataset, with one kept axis.
    estimate : {"pooled", "moving"}, optional
        None takes the moving ones where the fit kept them.
    divisor : {"biased", "unbiased"}, optional
        Divisor n or n - 1 of the variance; None leaves it as the apply uses it.

    Raises
    ------
    DataPolicyError
        When no such numbers give what an apply gives.
    InputError
        When the estimate is not there.
    """
    spec = statistics.spec
    require_channels(spec)
    mean, variance = statistics.estimate(estimate)
    affine = statistics.affine
    if spec.scale_axes != spec.kept and (affine.scale is not None or affine.bias is not None):
        raise DataPolicyError(
            f"Scale and bias run along the axes {_axes(spec, spec.scale_axes)}, the statistics "
            f"along {_axes(spec, spec.kept)}; frameworks have one axis for both."
        )
    moving_ones = statistics.moving is not None and estimate != "pooled"
    moments = statistics.moments
    if moving_ones and statistics.moving is not None and statistics.moving.beyond is not None:
        _require_held(statistics.moving.beyond.exponent != 0)
    if moments is not None and not moving_ones:
        if isinstance(moments, WideMoments):
            _require_held(moments.m2_exponent != 0)
        _require_held(np.isfinite(mean) & np.isinf(variance))
    if moments is not None:
        # A framework would round the integers themselves.
        hint = "Fit the data less an integer offset, and let the framework have them so."
        dtype = statistics.source.dtype
        require_resolved(plain(moments), dtype, "What was fitted", spec, hint)
    bad = int(np.count_nonzero(~(np.isfinite(mean) & np.isfinite(variance))))
    if bad:
        raise DataPolicyError(
            f"{bad} of {mean.size} channels have no finite mean and variance.",
            "They had no finite data, or --nonfinite propagate made them NaN.",
        )
    moving = statistics.moving if statistics.moving is not None and estimate != "pooled" else None
    norm = ChannelNorm(
        mean, variance, spec.epsilon, affine.scale, affine.bias, divisor=_held(statistics, moving)
    )
    if moving is not None:
        momentum = moving.rule.momentum
        norm = replace(norm, momentum=momentum, cumulative=momentum is None, batches=moving.batches)
    elif statistics.moments is not None:
        norm = replace(norm, count=statistics.moments.count)
    if spec.divides_by:
        return _of_spread(norm, statistics, estimate, divisor)
    norm = _converted(norm, statistics, divisor)
    # The numbers of an apply are the truth; a divisor that was asked for changes them knowingly.
    constant = statistics.constant(estimate)
    table = normalizer(spec, norm.mean, norm.variance, constant)
    flat = table.divisor == 0
    usual = spec.method != "center" and spec.placement == "inside"
    if usual and not has_unit_constants(spec.convention):
        square = norm.variance + norm.mean * norm.mean if spec.method == "rms" else norm.variance
        norm = replace(norm, mean=table.center, variance=square)
    else:
        norm = replace(
            norm,
            mean=table.center,
            variance=np.where(flat, norm.variance, table.divisor * table.divisor),
            epsilon=0.0,
        )
    return replace(norm, constant=flat)


def _of_spread(
    norm: ChannelNorm, statistics: Statistics, estimate: str | None, divisor: str | None
) -> ChannelNorm:
    """Return the mean and variance that stand for what is subtracted and divided by."""
    spec = statistics.spec
    if divisor is not None:
        raise DataPolicyError(
            f"Method {spec.method} divides by {spec.divides_by}; its variance has no divisor to "
            "change.",
            "Leave --moving-variance out.",
        )
    table = fitted_normalizer(statistics, spec, estimate)
    affine = statistics.affine.after(spec.offset, norm.mean.shape)
    flat = table.divisor == 0
    with np.errstate(over="ignore", under="ignore"):
        square = table.divisor * table.divisor
    far = np.isinf(square) | (square < SQUARE_ROOT_OF_SMALLEST**2)
    _require_held(~flat & (far if table.exponent is None else far | (table.exponent != 0)))
    return replace(
        norm,
        mean=table.center,
        variance=np.where(flat, norm.variance, square),
        epsilon=0.0,
        bias=affine.bias,
        divisor="unknown",
        constant=flat,
    )


def _require_held(lost: np.ndarray) -> None:
    """Refuse variances, or squares that stand for them, that leave float64."""
    if np.any(lost):
        raise DataPolicyError(
            f"The variance of {int(np.count_nonzero(lost))} of {lost.size} channels leaves "
            "float64, which no framework holds.",
            "Fit the data in other units, for example times a power of two.",
        )


def require_channels(spec: NormSpec) -> None:
    """Raise DataPolicyError unless statistics have one entry for each element of one axis."""
    batch = spec.layout.batch_axis
    if len(spec.kept) != 1 or spec.divided_axis is not None or batch in spec.kept:
        raise DataPolicyError(
            f"The statistics keep the axes {_axes(spec, spec.kept)}; frameworks keep one set of "
            "numbers for each channel.",
            "Fit with --mode batch, whose statistics belong to the dataset.",
        )


def _held(statistics: Statistics, moving: object) -> str:
    if moving is not None and statistics.moving is not None:
        return statistics.moving.rule.variance
    if statistics.moments is None:
        # What a mean and a variance that were supplied were divided by, only a conversion knows.
        return str(statistics.provenance.get("variance_divisor", "unknown"))
    return "unbiased" if statistics.spec.ddof else "biased"


def _converted(norm: ChannelNorm, statistics: Statistics, divisor: str | None) -> ChannelNorm:
    if divisor is None or divisor == norm.divisor:
        return norm
    if norm.count is not None:
        count = norm.count.astype(np.float64)
    else:
        count = _batch_count(statistics)
    if np.any(count <= 1):
        raise DataPolicyError("A channel with one element has no variance with divisor n - 1.")
    factor = count / (count - 1)
    variance = norm.variance * factor if divisor == "unbiased" else norm.variance / factor
    return replace(norm, variance=variance, divisor=divisor)


def _batch_count(statistics: Statistics) -> np.ndarray:
    """Return the elements of every batch in a channel, where they were all alike."""
    refusal = DataPolicyError(
        "The divisor of this variance cannot be changed: it would need the variance of every "
        "batch.",
        "Fit again with --moving-variance, or use --estimate pooled.",
    )
    moving, spec = statistics.moving, statistics.spec
    batch = spec.layout.batch_axis
    if moving is None or batch is None:
        raise refusal
    sizes = set(moving.rule.batch_sizes)
    shape = statistics.source.shape
    # The start value 1 of an exponential average was never divided by anything.
    started = moving.rule.momentum is None or moving.rule.start == "first-batch"
    clean = statistics.moments is not None and not statistics.moments.nonfinite.any()
    # What is fed are averages over batches, or over observations, which are all of one size.
    together = 1 if moving.rule.instances else min(sizes)
    alike = moving.rule.instances or (len(sizes) == 1 and not shape[batch] % together)
    if not alike or not started or not clean:
        raise refusal
    others = [shape[axis] for axis in spec.aggregated if axis != batch]
    return np.full(moving.mean.shape, float(together * int(np.prod(others, dtype=np.int64))))


def _axes(spec: NormSpec, axes: tuple[int, ...]) -> str:
    return ", ".join(spec.layout.axis_label(axis) for axis in axes) or "none"
