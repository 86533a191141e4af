"""Which moments a method needs, measured and rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.integer_origins import has_origins
from normcli.domain.moments import Moments
from normcli.domain.norm_moments import NormMoments, PowerMoments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import (
    QUANTILE_RESTS,
    QuantileMoments,
    SketchedMoments,
    WideQuantileMoments,
)
from normcli.domain.quantile_sketches import QuantileSketches
from normcli.domain.ranged_moments import RangedMoments
from normcli.domain.wide_moments import WideMoments, wide

# Sums that are not rounded yet, so that they can be merged.
Unrounded = ExactMoments | RangedMoments | SketchedMoments | PowerMoments
# What the extremes of integers beyond 2**53 lack.
EXTREMES = ("minimum_rest", "maximum_rest")
# All that float64 leaves out of numbers, where statistics are written by block.
RESTS = ("mean_rest", *EXTREMES, *QUANTILE_RESTS)
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
    if has_origins(dtype) and method == "robust":
        return QUANTILE_RESTS
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
    kind = WideQuantileMoments if "center_rest" in arrays else kind_of(spec.method)
    moments = kind(**arrays)
    if isinstance(moments, NormMoments):
        assert spec.p is not None
        return replace(moments, p=spec.p)
    return moments


def widened(moments: Moments) -> Moments:
    """Return moments in the form that holds what float64 leaves out; nothing more is left out."""
    return moments.wide() if isinstance(moments, QuantileMoments) else wide(moments)


def plain(moments: Moments) -> Moments:
    """Return moments without what float64 leaves out of them."""
    if isinstance(moments, QuantileMoments):
        return moments.plain()
    if not isinstance(moments, WideMoments):
        return moments
    return Moments(*(getattr(moments, name) for name in Moments.names()))


def alike(several: Sequence[Moments]) -> list[Moments]:
    """Return moments of one method in one form: wide if any is."""
    if any(isinstance(one, WideMoments | WideQuantileMoments) for one in several):
        return [widened(one) for one in several]
    return list(several)


def stored(whole: Moments, index: Any, part: Moments) -> Moments:
    """Put the moments of some groups in place and return the whole, wide if either is."""
    whole, part = alike((whole, part))
    whole.store(index, part)
    return whole


def plain_sums(sums: Unrounded) -> ExactMoments:
    """Return the exact sums of the elements alone, which are what sidecars keep of them."""
    return sums if isinstance(sums, ExactMoments) else sums.plain


def no_sums(
    shape: tuple[int, ...],
    levels: tuple[float, float] | None = None,
    p: float | None = None,
    method: str | None = None,
    dtype: np.dtype | None = None,
) -> Unrounded:
    """Return the sums of nothing, as a method needs them that has these settings."""
    if method is not None and dtype is not None and needs_extremes(method, dtype):
        return RangedMoments.identity(shape)
    if levels is not None:
        integers = None
        if dtype is not None and has_origins(dtype):
            integers = dtype.newbyteorder("=")
        sketches = QuantileSketches.identity(shape, levels, integers)
        return SketchedMoments(ExactMoments.identity(shape), sketches)
    return ExactMoments.identity(shape) if p is None else PowerMoments.identity(shape, p)
