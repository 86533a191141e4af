"""The settings of a fit that continues earlier statistics: theirs, where no other are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from normcli.api.options import FitOptions
from normcli.domain.norm_spec import NormSpec


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
        earlier.pop("range")
    missing = {name: value for name, value in earlier.items() if getattr(options, name) is None}
    return replace(options, **missing)


def _axes(axes: tuple[int, ...]) -> str:
    return ",".join(map(str, axes)) or "none"
