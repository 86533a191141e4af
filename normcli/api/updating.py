"""Statistics that a fit goes on with: of the same kind, and what both are of."""

from __future__ import annotations

from dataclasses import replace

from normcli.domain.geometry import Geometry
from normcli.domain.layout import Layout
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import (
    SourceDescription,
    Statistics,
)
from normcli.errors import InputError, UsageError


def require_same(earlier: Statistics, spec: NormSpec, geometry: Geometry, path: str) -> None:
    """Refuse to continue statistics of another kind.

    Raises
    ------
    InputError
        When settings or extents differ.
    UsageError
        When statistics belong to each observation, so that there is nothing to continue.
    """
    if not spec.per_dataset:
        raise UsageError(
            "--update continues statistics of a dataset; these belong to each observation."
        )
    old = earlier.spec
    for name in (
        "mode",
        "method",
        "quantiles",
        "p",
        "aggregated",
        "kept",
        "groups",
        "ddof",
        "nonfinite",
    ):
        if getattr(old, name) != getattr(spec, name):
            raise InputError(
                f"{path} was fitted with {name} {getattr(old, name)}, not {getattr(spec, name)}.",
                "Continue with the same settings, or fit afresh.",
            )
    if earlier.shape != geometry.statistics_shape:
        raise InputError(
            f"{path} holds statistics of shape {earlier.shape}, but this input has "
            f"{geometry.statistics_shape}."
        )


def extended(
    earlier: SourceDescription, new: SourceDescription, layout: Layout
) -> SourceDescription:
    """Return the source of earlier statistics and of those that continue them."""
    shape = list(new.shape)
    batch = layout.batch_axis
    if batch is not None and len(earlier.shape) == len(shape):
        shape[batch] += earlier.shape[batch]
    return replace(
        new,
        shape=tuple(shape),
        inputs=(*earlier.inputs, *new.inputs),
        chunks=earlier.chunks + new.chunks,
        missing_chunks=earlier.missing_chunks + new.missing_chunks,
    )
