"""Moments with a median and two quantiles: what the method ``robust`` normalizes with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.quantile_sketches import QuantileSketches
from normcli.domain.wide_moments import beyond_exact
from normcli.errors import InputError


@dataclass(frozen=True)
class QuantileMoments(Moments):
    """Moments, and order statistics of the same finite elements.

    Attributes
    ----------
    lower, center, upper : ndarray of float64
        The lower quantile, the median and the upper quantile of each group; NaN where count is 0.
    rank_error : ndarray of float64
        By how much the rank of any of them may be off, as a share of the elements, with a
        confidence of 99 %; 0 where they are exact.
    sketches : QuantileSketches or None
        What the quantiles were taken from, where it is kept to be merged.
    """

    lower: np.ndarray
    center: np.ndarray
    upper: np.ndarray
    rank_error: np.ndarray
    sketches: QuantileSketches | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the arrays, without the sketches."""
        return tuple(f.name for f in fields(cls) if f.name != "sketches")

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> QuantileMoments:
        """Return the moments of nothing; they hold no sketches."""
        lower, center, upper = (np.full(shape, np.nan) for _ in range(3))
        return QuantileMoments.of(Moments.identity(shape), lower, center, upper, np.zeros(shape))

    @classmethod
    def of(
        cls,
        moments: Moments,
        lower: np.ndarray,
        center: np.ndarray,
        upper: np.ndarray,
        rank_error: np.ndarray,
        sketches: QuantileSketches | None = None,
        rests: np.ndarray | None = None,
    ) -> QuantileMoments:
        """Return moments with quantiles of the same elements, and what these lack of integers."""
        plain = {name: getattr(moments, name) for name in Moments.names()}
        found = QuantileMoments(
            **plain,
            lower=lower,
            center=center,
            upper=upper,
            rank_error=rank_error,
            sketches=sketches,
        )
        if rests is None or not np.any(beyond_exact(moments)):
            return found
        return found.wide(rests)

    @classmethod
    def by_sketches(cls, moments: Moments, sketches: QuantileSketches) -> QuantileMoments:
        """Return moments with the quantiles that sketches of the same elements have."""
        (lower, center, upper), rests = sketches.quantiles_with_rests()
        ends = np.asarray(lower), np.asarray(center), np.asarray(upper)
        return cls.of(moments, *ends, sketches.rank_errors(), sketches, rests)

    def wide(self, rests: np.ndarray | None = None) -> WideQuantileMoments:
        """Return the same with what quantiles of integers lack; NaN where that is not known."""
        if isinstance(self, WideQuantileMoments):
            return self
        if rests is None:
            rests = np.broadcast_to(np.where(beyond_exact(self), np.nan, 0.0), (3, *self.shape))
        lower, center, upper = (np.array(rest) for rest in rests)
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return WideQuantileMoments(**own, lower_rest=lower, center_rest=center, upper_rest=upper)

    def plain(self) -> QuantileMoments:
        """Return the same without what quantiles of integers lack."""
        if type(self) is QuantileMoments:
            return self
        return QuantileMoments(**{f.name: getattr(self, f.name) for f in fields(QuantileMoments)})

    @property
    def spread(self) -> np.ndarray:
        """Difference of the upper and the lower quantile."""
        with np.errstate(over="ignore"):
            return np.asarray(self.upper - self.lower)

    def __getitem__(self, index: Any) -> QuantileMoments:
        """Return the moments of some of the groups."""
        part = super().__getitem__(index)
        return replace(part, sketches=None if self.sketches is None else self.sketches[index])

    def derived(self, ddof: int = 0) -> dict[str, np.ndarray]:
        """Return variance and spread."""
        return {**super().derived(ddof), "spread": self.spread}

    def merge(self, other: Moments) -> QuantileMoments:
        """Return the moments of the union of two disjoint sets of elements.

        Raises
        ------
        InputError
            When one side has no sketches: quantiles alone cannot be merged.
        """
        assert isinstance(other, QuantileMoments)
        if self.sketches is None or other.sketches is None:
            raise InputError(
                "These statistics hold quantiles without their sketches, which cannot be merged.",
                "Fit from the data; .npz, .h5, .zarr and .safetensors keep the sketches.",
            )
        union = super().merge(other)
        return QuantileMoments.by_sketches(union, self.sketches.merge(other.sketches))

    def alone(self) -> QuantileMoments:
        """Return the same without the sketches."""
        return replace(self, sketches=None)

    def with_sums(self, moments: Moments) -> QuantileMoments:
        """Return the same quantiles with other moments of the same elements."""
        return replace(self, **{name: getattr(moments, name) for name in Moments.names()})


# What the quantiles of integers lack.
QUANTILE_RESTS = ("lower_rest", "center_rest", "upper_rest")


@dataclass(frozen=True, kw_only=True)
class WideQuantileMoments(QuantileMoments):
    """Moments with quantiles of 64-bit integers, some beyond 2**53.

    Attributes
    ----------
    lower_rest, center_rest, upper_rest : ndarray of float64
        What the quantiles lack: the median is ``center + center_rest``. NaN where it is not known.
    """

    lower_rest: np.ndarray
    center_rest: np.ndarray
    upper_rest: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> WideQuantileMoments:
        """Return the moments of nothing; they hold no sketches."""
        return QuantileMoments.identity(shape).wide()

    @property
    def spread(self) -> np.ndarray:
        """Difference of the upper and the lower quantile."""
        # Both differences are exact where the spread is below 2**53.
        rest = np.nan_to_num(self.upper_rest) - np.nan_to_num(self.lower_rest)
        return np.asarray(super().spread + rest)

    @property
    def known(self) -> np.ndarray:
        """Whether nothing is missing of any of the three quantiles of each group."""
        return ~np.isnan(self.lower_rest + self.center_rest + self.upper_rest)


@dataclass(frozen=True)
class SketchedMoments:
    """Exact sums and sketches of the same elements, before either is rounded.

    Attributes
    ----------
    plain : ExactMoments
        The sums.
    sketches : QuantileSketches
        The sketches, of the same extents.
    """

    plain: ExactMoments
    sketches: QuantileSketches

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the groups."""
        return self.plain.shape

    @property
    def nbytes(self) -> int:
        """Bytes of sums and sketches together."""
        return self.plain.nbytes + self.sketches.nbytes

    def __getitem__(self, index: Any) -> SketchedMoments:
        """Return what some of the groups have."""
        return SketchedMoments(self.plain[index], self.sketches[index])

    def store(self, index: Any, part: SketchedMoments) -> SketchedMoments:
        """Put some groups in place, and return the whole."""
        self.sketches.store(index, part.sketches)
        return SketchedMoments(self.plain.store(index, part.plain), self.sketches)

    def merge(self, other: SketchedMoments) -> SketchedMoments:
        """Return sums and sketches of the union of two disjoint sets of elements."""
        return SketchedMoments(self.plain.merge(other.plain), self.sketches.merge(other.sketches))

    def canonical(self) -> SketchedMoments:
        """Return the same with sums in their canonical form."""
        return SketchedMoments(self.plain.canonical(), self.sketches)

    def finish(
        self, rounding: Callable[[ExactMoments], Moments] = ExactMoments.finish
    ) -> QuantileMoments:
        """Return the moments in float64, with quantiles; they keep the sketches."""
        return QuantileMoments.by_sketches(rounding(self.plain), self.sketches)
