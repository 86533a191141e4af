"""Which moments a method needs, measured and rounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.integer_origins import has_origins
from normcli.domain.moments import Moments
from normcli.domain.norm_moments import NormMoments, PowerMoments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments, SketchedMoments
from normcli.domain.quantile_sketches import QuantileSketches
from normcli.domain.ranged_moments import RangedMoments
from normcli.domain.wide_moments import wide

# Sums that are not rounded yet, so that they can be merged.
Unrounded = ExactMoments | RangedMoments | SketchedMoments | PowerMoments
# What the extremes of integers beyond 2**53 lack.
EXTREMES = ("minimum_rest", "maximum_rest")
# What tasks hand over: rounded already where nothing is merged with it.
Found = Moments | Unrounded


def kind_of(method: str) -> type[Moments]:
    """Return the kind of moments that statistics of a method have."""
    if method == "robust":
        return QuantileMoments
    return NormMoments if method == "lp" else Moments


def rest_names(method: str, dtype: np.dtype) -> tuple[str, ...]:
    """Return the arrays of what rounding takes away, which are stored with those of a method.

    Where statistics are written by block, nobody knows before whether integers are beyond 2**53.
    """
    if not has_origins(dtype) or kind_of(method) is not Moments:
        return ()
    return ("mean_rest", *(EXTREMES if needs_extremes(method, dtype) else ()))


def needs_extremes(method: str, dtype: np.dtype) -> bool:
    """Return whether extremes of elements of a type are measured exactly, for a method."""
    return method == "minmax" and has_origins(dtype)


def array_names(method: str) -> tuple[str, ...]:
    """Return the arrays that statistics of a method have in a sidecar, those for readers too."""
    kind = kind_of(method)
    return (*kind.names(), *kind.identity(()).derived())


def moments_from(spec: NormSpec, arrays: dict[str, np.ndarray]) -> Moments:
    """Return the moments that arrays by the names of their kind, or of wide ones, hold."""
    if "mean_rest" in arrays:
        own = wide(Moments(*(arrays[name] for name in Moments.names())))
        return replace(own, **{name: arrays[name] for name in own.names() if name in arrays})
    moments = kind_of(spec.method)(**arrays)
    if isinstance(moments, NormMoments):
        assert spec.p is not None
        return replace(moments, p=spec.p)
    return moments


def plain_sums(sums: Unrounded) -> ExactMoments:
    """Return the exact sums of the elements alone, which are what sidecars keep of them."""
    return sums if isinstance(sums, ExactMoments) else sums.plain


def no_sums(
    shape: tuple[int, ...],
    levels: tuple[float, float] | None = None,
    p: float | None = None,
    extremes: bool = False,
) -> Unrounded:
    """Return the sums of nothing, as a method needs them that has these settings."""
    if extremes:
        return RangedMoments.identity(shape)
    if levels is not None:
        sketches = QuantileSketches.identity(shape, levels)
        return SketchedMoments(ExactMoments.identity(shape), sketches)
    return ExactMoments.identity(shape) if p is None else PowerMoments.identity(shape, p)
