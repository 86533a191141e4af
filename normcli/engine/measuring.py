"""How the blocks of a pass are measured: the sums of every method, and what some need beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.domain.moment_kinds import Unrounded, needs_extremes, no_sums
from normcli.domain.moments import Moments
from normcli.domain.norm_moments import PowerMoments, needs_powers
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments, SketchedMoments
from normcli.domain.quantile_sketches import sketch_k
from normcli.domain.wide_moments import completed
from normcli.kernels.group_extremes import measure_extremes
from normcli.kernels.group_powers import measure_powers
from normcli.kernels.group_quantiles import sketch_groups, whole_quantiles
from normcli.kernels.select import Kernels

Start = tuple[int, ...]


@dataclass(frozen=True)
class Measurer:
    """Measures blocks for one method.

    Attributes
    ----------
    compute : Kernels
        Takes the exact sums.
    geometry : Geometry
        Of the whole array.
    levels : tuple of float or None
        The quantiles that the method ``robust`` needs.
    p : float or None
        The norm that the method ``lp`` needs.
    method : str or None
        The method; None for moments alone.
    """

    compute: Kernels
    geometry: Geometry
    levels: tuple[float, float] | None = None
    p: float | None = None
    method: str | None = None

    @classmethod
    def of(cls, spec: NormSpec | None, geometry: Geometry, compute: Kernels) -> Measurer:
        """Return what measures for the method of `spec`; moments alone for None."""
        if spec is None:
            return cls(compute, geometry)
        levels = None if spec.quantiles is None else spec.levels
        return cls(compute, geometry, levels, spec.p, spec.method)

    def sums(self, source: ArraySource, values: np.ndarray, block: Block) -> Unrounded:
        """Return the sums of what of a block counts in statistics, to be merged with others."""
        parts = source.stored_parts(block)
        if parts is None:
            return self._sums(values, block.start)
        region = self.geometry.region(block.start, block.stop)
        extents = tuple(s.stop - s.start for s in region)
        whole: Any = no_sums(extents, self.levels, self.p, self.method, values.dtype)
        for part in parts:
            start = tuple(a + s.start for a, s in zip(block.start, part, strict=True))
            stop = tuple(a + s.stop for a, s in zip(block.start, part, strict=True))
            order: Any = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
            sums = self._sums(values[part].copy(order=order), start)
            index = tuple(
                slice(own.start - s.start, own.stop - s.start)
                for own, s in zip(self.geometry.region(start, stop), region, strict=True)
            )
            whole = whole.store(index, whole[index].merge(sums))
        found: Unrounded = whole
        return found

    def moments(self, source: ArraySource, values: np.ndarray, block: Block) -> Moments:
        """Return the rounded moments of a block that holds whole groups."""
        if self.levels is None:
            return self.finish(self.sums(source, values, block), values.dtype)
        plain = Measurer(self.compute, self.geometry).moments(source, values, block)
        parts, known = source.stored_parts(block), None
        if parts is not None:
            known = np.zeros_like(values, bool)
            for part in parts:
                known[part] = True
        quantiles, rests = whole_quantiles(values, self.geometry, block.start, self.levels, known)
        lower, center, upper = quantiles
        return QuantileMoments.of(plain, lower, center, upper, np.zeros(plain.shape), rests=rests)

    def finish(self, sums: Unrounded, dtype: np.dtype | None = None) -> Moments:
        """Return sums, rounded; those of elements of a type with what float64 leaves out."""
        if isinstance(sums, ExactMoments):
            found = self.compute.finish(sums)
            if self.method is None or dtype is None:
                return found
            return completed(found, sums, self.method, dtype)
        return sums.finish(self.compute.finish)

    def _sums(self, values: np.ndarray, start: Start) -> Unrounded:
        plain = self.compute.measure(values, self.geometry, start)
        if self.levels is not None:
            k = sketch_k(self.geometry.group_count)
            sketches = sketch_groups(values, self.geometry, start, self.levels, k)
            return SketchedMoments(plain, sketches)
        if self.p is not None:
            powers = far = None
            if needs_powers(self.p):
                powers, far = measure_powers(values, self.geometry, start, self.p)
            return PowerMoments(plain, powers, self.p, far)
        if self._ranged(values.dtype):
            return measure_extremes(values, self.geometry, start, plain)
        return plain

    def _ranged(self, dtype: np.dtype) -> bool:
        return self.method is not None and needs_extremes(self.method, dtype)
