"""Fitted statistics: what a sidecar holds, at full precision and mergeable later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.conventions import has_unit_constants
from normcli.domain.dtypes import spacing
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingStatistics
from normcli.domain.norm_moments import NormMoments, largest_magnitude
from normcli.domain.norm_spec import NormSpec
from normcli.domain.part import Part
from normcli.errors import DataPolicyError, InputError

# Squares of smaller magnitudes lose some of their 53 bits in float64.
SQUARE_ROOT_OF_SMALLEST = 1e-140
_WELL_WITHIN = 1e150

# Two elements this close are one value that was rounded twice.
CONSTANT_ULPS = 4


# Whole statistics of more groups are kept without their exact sums, which typically take 150 to 250
# bytes a group, 16 MB here, and 1.7 KB, 110 MB here, for float64 of all magnitudes.
EXACT_GROUPS = 1 << 16


@dataclass(frozen=True)
class SourceDescription:
    """What identifies the data that statistics were taken from.

    Attributes
    ----------
    shape : tuple of int
        Extents, of all inputs joined along the batch axis.
    dtype : numpy.dtype
        Element type of the input.
    dims : tuple of str or None
        Dimension names.
    inputs : tuple of mapping
        For each input: ``path``, ``size`` in bytes, ``mtime`` in seconds since 1970 and
        ``fingerprint`` of its content sample; a stream has its path ``-`` alone.
    chunks, missing_chunks : int
        Chunks (or shards) of the input that its format may leave out, and those that are not
        stored; both 0 where the format stores everything.
    part : Part or None
        Which part of the data alone was measured.
    units : str or None
        Units of the elements, where the input names them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    dims: tuple[str, ...] | None = None
    inputs: tuple[Mapping[str, Any], ...] = ()
    chunks: int = 0
    missing_chunks: int = 0
    part: Part | None = None
    units: str | None = None


@dataclass(frozen=True)
class Statistics:
    """Statistics of each group, with the spec they belong to.

    Attributes
    ----------
    spec : NormSpec
        Axes and formula.
    source : SourceDescription
        The data that were measured.
    moments : Moments or None
        Pooled moments; None where only a mean and a variance were supplied.
    given : tuple of ndarray, optional
        Supplied mean and variance, where there are no moments.
    moving : MovingStatistics or None
        Moving statistics, where they were asked for.
    affine : Affine
        Scale and bias that were applied with them; absent parts are None.
    provenance : mapping
        ``version``, ``command`` and ``created`` (ISO 8601, UTC).
    exact : ExactMoments or None
        The sums that the moments were rounded from, in their canonical form, where they are
        kept to be added to.
    """

    spec: NormSpec
    source: SourceDescription
    moments: Moments | None
    given: tuple[np.ndarray, np.ndarray] | None = None
    moving: MovingStatistics | None = None
    affine: Affine = field(default_factory=Affine)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    exact: ExactMoments | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the statistics."""
        return self.mean.shape

    @property
    def mean(self) -> np.ndarray:
        """Pooled (or supplied) mean of each group; NaN where a group has no finite element."""
        return self.pooled()[0]

    @property
    def variance(self) -> np.ndarray:
        """Pooled (or supplied) variance of each group, with the divisor of the spec."""
        return self.pooled()[1]

    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance over everything that was measured.

        Raises
        ------
        InputError
            When there are neither moments nor a supplied mean and variance.
        """
        if self.moments is not None:
            return pooled_estimate(self.moments, self.spec)
        if self.given is not None:
            return self.given
        raise InputError(
            "These statistics hold neither moments nor a mean and a variance.",
            "Of more than a million groups they stay in their file; apply with --stats FILE.",
        )

    def estimate(self, which: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance to normalize with.

        Parameters
        ----------
        which : {"pooled", "moving"}, optional
            None takes the moving ones where the fit kept them.

        Raises
        ------
        InputError
            When moving statistics are asked for and there are none.
        """
        if which == "moving" and self.moving is None:
            raise InputError(
                "The statistics hold no moving mean and variance.",
                "Fit with --momentum and --batch-size, or use --estimate pooled.",
            )
        if self.moving is not None and which != "pooled":
            return self.moving.mean, self.moving.variance
        return self.pooled()

    def alone(self) -> Statistics:
        """Return the same without exact sums and sketches: what nothing is added to."""
        return replace(
            self, exact=None, moments=None if self.moments is None else self.moments.alone()
        )

    def constant(self, which: str | None = None) -> np.ndarray:
        """Return which groups are constant, and so become their bias.

        A group is constant when its minimum and maximum differ by no more than 4 units in the
        last place of the input's own type. A convention's rule is kept as it is, and moving
        statistics have no extremes to judge by.
        """
        moving = self.moving is not None and which != "pooled"
        if self.moments is None or moving:
            return np.zeros(self.estimate(which)[0].shape, bool)
        return constant_by_rule(self.moments, self.spec, self.source.dtype)


def keeps_exact(spec: NormSpec, groups: int) -> bool:
    """Return whether whole statistics are kept with their exact sums.

    Those of observations are not: an observation is whole, and nothing is ever added to it.
    """
    return spec.per_dataset and groups <= EXACT_GROUPS


def added(
    given: Iterable[tuple[Moments, ExactMoments | None]],
) -> tuple[Moments, ExactMoments | None]:
    """Return the moments of the union of disjoint sets of elements, for the same groups.

    Parameters
    ----------
    given : iterable of (Moments, ExactMoments or None)
        Moments, and the sums that they were rounded from where they are known; one or more, of
        which none is kept.

    Returns
    -------
    Moments
        Rounded once from exact sums where all sides have them, and so the same for any order and
        cut; merged as they are, with a rounding each, otherwise.
    ExactMoments or None
        The exact sums, where all sides have them.
    """
    sides = iter(given)
    total, sums = next(sides)
    for moments, more in sides:
        # Any later side may lack its sums.
        total = total.merge(moments)
        # Where units differ, sums get a limb more with each merge, if it is needed or not.
        sums = None if sums is None or more is None else sums.merge(more).canonical()
    return (total, None) if sums is None else (total.with_sums(sums.finish()), sums)


def require_whole(statistics: Statistics, where: str) -> None:
    """Refuse statistics of one part, which say nothing of the whole yet.

    Raises
    ------
    InputError
        When `statistics`, found at `where`, are those of a part.
    """
    part = statistics.source.part
    if part is not None:
        raise InputError(
            f"{where} holds part {part.number} of {part.of} of the statistics only.",
            f"Join the parts first: normcli merge STATS... -o STATS, with all {part.of} of them.",
        )


def pooled_estimate(moments: Moments, spec: NormSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each group by the divisor and the NaN policy of `spec`."""
    mean = np.where(moments.count > 0, moments.mean, np.nan)
    variance = moments.variance(spec.ddof)
    if spec.nonfinite == "propagate":
        mean = np.where(moments.nonfinite > 0, np.nan, mean)
        variance = np.where(moments.nonfinite > 0, np.nan, variance)
    return mean, variance


def constant_by_rule(moments: Moments, spec: NormSpec, dtype: np.dtype) -> np.ndarray:
    """Return which groups are taken for constant by the convention of `spec`, or by our own rule.

    scikit-learn compares the variance with the error bound of its own summation: v is taken for 0
    where v <= n u v + (n mean u)**2, with the unit u = 2**-52. Other conventions have no rule.
    """
    if spec.convention is None:
        return constant_groups(moments, dtype)
    if not has_unit_constants(spec.convention):
        return np.zeros(moments.shape, bool)
    count, variance = moments.count.astype(np.float64), moments.variance()
    unit = float(np.finfo(np.float64).eps)
    with np.errstate(invalid="ignore", over="ignore"):
        bound = count * unit * variance + (count * moments.mean * unit) ** 2
        return np.asarray(variance <= bound)


def pooled_extremes(moments: Moments, spec: NormSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return minimum and maximum of each group by the NaN policy of `spec`; NaN where empty."""
    unknown = moments.count == 0
    if spec.nonfinite == "propagate":
        unknown = unknown | (moments.nonfinite > 0)
    return np.where(unknown, np.nan, moments.minimum), np.where(unknown, np.nan, moments.maximum)


def constant_groups(moments: Moments, dtype: np.dtype) -> np.ndarray:
    """Return which groups hold one value, up to 4 units in the last place of `dtype`."""
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    if dtype.kind in "biu":
        # Extremes beyond 2**53 are rounded; the sum of squared deviations is not.
        return seen & (low == high) & (moments.m2 == 0)
    spread = high - low
    # Four units of the coarsest type (bfloat16) are 1/32, those of float16 near 0 are 2.4e-7.
    # Mostly no group is so close, and units need not be looked up (30 us for 4096 groups).
    close = seen & (spread <= np.maximum(magnitude / 16, 1e-6))
    if not np.any(close):
        return close
    return close & (spread <= CONSTANT_ULPS * spacing(dtype, magnitude))


def require_usable(moments: Moments, spec: NormSpec, dtype: np.dtype, where: str) -> None:
    """Refuse moments that cannot be normalized with, before anything is written.

    Raises
    ------
    DataPolicyError
        For non-finite values under ``--nonfinite error``, ddof with one element, and values
        whose mean or squares leave float64 at either end.
    """
    bad = int(moments.nonfinite.sum())
    if spec.nonfinite == "error" and bad:
        groups = int(np.count_nonzero(moments.nonfinite))
        raise DataPolicyError(
            f"{where} holds {bad} NaN or infinite values in {groups} of {moments.count.size} "
            "groups.",
            "--nonfinite omit leaves them out of the statistics.",
        )
    if spec.ddof and np.any(moments.count == 1):
        raise DataPolicyError(
            f"{where} has groups of one element, whose variance with divisor n - 1 is undefined.",
            "Use --ddof 0, or aggregate more axes.",
        )
    _require_squares_fit(moments, spec, dtype, where)
    if isinstance(moments, NormMoments):
        _require_powers_fit(moments, where)


def _require_powers_fit(moments: NormMoments, where: str) -> None:
    """Refuse magnitudes whose powers leave float64 at either end."""
    lost = (moments.count > 0) & ~np.isfinite(moments.norm)
    if np.any(lost):
        largest = float(largest_magnitude(moments)[lost].max())
        raise DataPolicyError(
            f"{where} holds a group of values up to {largest:.3g}, whose powers of {moments.p:g} "
            "leave float64.",
            "Store the array in other units, such that its largest values are near 1; --p inf is "
            "near where p is large.",
        )


def _require_squares_fit(moments: Moments, spec: NormSpec, dtype: np.dtype, where: str) -> None:
    """Refuse magnitudes whose squares overflow or underflow float64, so that nothing is lost."""
    if _squares_surely_fit(moments):
        return
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    largest = np.maximum(np.abs(low), np.abs(high))
    finite = np.isfinite(moments.mean) & np.isfinite(moments.m2)
    size = largest
    if spec.method == "rms":
        finite &= np.isfinite(np.where(seen, moments.mean_square(), 0.0))
    elif spec.method not in ("maxabs", "lp"):
        with np.errstate(over="ignore"):
            size = np.where(constant_groups(moments, dtype), 0.0, high - low)
    if not np.all(finite):
        raise DataPolicyError(
            f"{where} holds values up to {float(largest[~finite].max()):.3g}, whose squares leave "
            "float64.",
            "Store the array in larger units, for example divided by a power of two.",
        )
    lost = (size > 0) & (size < SQUARE_ROOT_OF_SMALLEST)
    if np.any(lost) and spec.method != "center":
        raise DataPolicyError(
            f"{where} holds a group that spreads over {float(size[lost].min()):.3g} only, whose "
            "square leaves float64.",
            "Store the array in smaller units, for example multiplied by a power of two.",
        )


def _squares_surely_fit(moments: Moments) -> bool:
    """Whether every group has a spread, and no square comes near the ends of float64.

    All that most data take: with it, and without the calls that it saves, 4096 groups of float32
    are normalized 3 % sooner.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        spread = moments.maximum - moments.minimum
        # NaN and empty groups, which hold infinities, compare false.
        return bool(
            np.all(spread >= 2 * SQUARE_ROOT_OF_SMALLEST)
            and np.all(np.abs(moments.mean) < _WELL_WITHIN)
            and np.all(moments.m2 < _WELL_WITHIN**2)
        )


def require_resolved(moments: Moments, dtype: np.dtype, where: str) -> None:
    """Refuse to normalize integers beyond 2**53 by statistics that float64 cannot tell apart.

    Their mean and variance are right; but elements are rounded to float64 before the mean is
    subtracted, and that hurts where the rounding reaches the spread.

    Raises
    ------
    DataPolicyError
        When it does.
    """
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        return
    seen = moments.count > 1
    largest = np.where(seen, np.maximum(np.abs(moments.minimum), np.abs(moments.maximum)), 0.0)
    deviation = np.sqrt(np.where(seen, moments.variance(), 1.0))
    lost = (largest > 2.0**53) & (np.spacing(largest) > 1e-6 * deviation)
    if np.any(lost):
        raise DataPolicyError(
            f"{where} holds integers up to {float(largest.max()):.6g}, beyond 2**53, with a "
            "spread too small for float64.",
            "Subtract an integer offset before normalizing.",
        )
