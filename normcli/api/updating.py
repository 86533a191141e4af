"""Statistics that a fit goes on with: of the same kind, and what both are of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from normcli.api.merge_checks import input_key, input_place
from normcli.api.options import FitOptions
from normcli.domain.geometry import Geometry
from normcli.domain.layout import Layout
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import (
    SourceDescription,
    Statistics,
)
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError


def require_same(
    earlier: Statistics, new: SourceDescription, spec: NormSpec, geometry: Geometry, path: str
) -> None:
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
    units = earlier.source.units
    if None not in (units, new.units) and units != new.units:
        raise InputError(
            f"{path} is of data in {units}, but this input is in {new.units}.",
            "Convert the data to one unit.",
        )


def warn_of_repeats(
    earlier: SourceDescription | None, new: SourceDescription, observer: Observer
) -> None:
    """Tell of inputs that are counted more than once.

    Nothing is refused: an epoch of moving statistics repeats its data on purpose, and weights may
    be meant.
    """
    seen = {input_key(entry) for entry in (() if earlier is None else earlier.inputs)}
    for entry in new.inputs:
        if entry.get("fingerprint") is None:
            continue  # Nothing tells what came through a pipe.
        if input_key(entry) in seen:
            observer.warn(
                f"{input_place(entry)} is counted more than once.",
                None if earlier is None else "It may be in the statistics of --update already.",
            )
        seen.add(input_key(entry))


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
        units=earlier.units or new.units,
    )


def continued_options(options: FitOptions, spec: NormSpec) -> FitOptions:
    """Return options with those of the statistics that are continued in place of defaults.

    Without this, an update would change epsilon back to the default, because epsilon concerns the
    application alone and contradicts nothing. What is given stays, and is compared with the
    earlier statistics afterwards.

    Parameters
    ----------
    options : FitOptions
        What the user gave.
    spec : NormSpec
        Of the statistics that are continued.
    """
    # A mode that is given brings its own axes, and is refused if it is not that of the fit.
    same_mode = options.mode in (None, spec.mode)
    earlier: dict[str, Any] = {
        "mode": spec.mode,
        "method": spec.method,
        "layout": "".join(spec.layout.letters),
        "ddof": spec.ddof,
        "nonfinite": spec.nonfinite,
        "convention": spec.convention,
        "epsilon_placement": spec.placement,
        "range": spec.range,
        "quantiles": spec.quantiles,
        "p": spec.p,
    }
    if spec.epsilon_given and options.convention in (None, spec.convention):
        earlier["epsilon"] = spec.epsilon
    if same_mode and spec.mode == "group":
        earlier |= {"groups": spec.groups, "group_axis": str(spec.divided_axis)}
    if same_mode and spec.mode in ("layer", "custom") and not options.wolfram_levels:
        earlier["aggregate"] = _axes(spec.aggregated)
    if same_mode and not options.wolfram_levels:
        earlier["scale_axes"] = _axes(spec.scale_axes)
    if options.method not in (None, spec.method):
        for name in ("range", "quantiles", "p"):
            earlier.pop(name)  # They belong to the method of the earlier fit.
    missing = {name: value for name, value in earlier.items() if getattr(options, name) is None}
    return replace(options, **missing)


def _axes(axes: tuple[int, ...]) -> str:
    return ",".join(map(str, axes)) or "none"
