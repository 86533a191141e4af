"""Fitted statistics: what a sidecar holds, at full precision and mergeable later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.constancy import constant_by_rule
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingStatistics
from normcli.domain.norm_spec import NormSpec
from normcli.domain.part import Part
from normcli.domain.wide_moments import completed, merged
from normcli.errors import InputError

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
    method: str = "zscore",
    dtype: np.dtype | None = None,
) -> tuple[Moments, ExactMoments | None]:
    """Return the moments of the union of disjoint sets of elements, for the same groups.

    Parameters
    ----------
    given : iterable of (Moments, ExactMoments or None)
        Moments, and the sums that they were rounded from where they are known; one or more, of
        which none is kept.
    method : str
        Their method.
    dtype : numpy.dtype, optional
        Type of the elements, of which more is kept than float64 holds, where that is needed.

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
        total = merged(total, moments)
        # Where units differ, sums get a limb more with each merge, if it is needed or not.
        sums = None if sums is None or more is None else sums.merge(more).canonical()
    if sums is None:
        return total, None
    found = sums.finish()
    if dtype is not None:
        found = completed(found, sums, method, dtype)
    return total.with_sums(found), sums


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


def pooled_extremes(moments: Moments, spec: NormSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return minimum and maximum of each group by the NaN policy of `spec`; NaN where empty."""
    unknown = moments.count == 0
    if spec.nonfinite == "propagate":
        unknown = unknown | (moments.nonfinite > 0)
    return np.where(unknown, np.nan, moments.minimum), np.where(unknown, np.nan, moments.maximum)
