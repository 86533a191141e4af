"""Statistics as a bundle: arrays by the names of the command line, and attributes.

``mean`` is the mean of `Moments` at full precision (0 where nothing was counted), so that reading
gives back the same bits. ``variance`` is there for other programs: with ``m2`` it is not read.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from normcli.bundles.array_checks import (
    require_finite,
    require_not_negative_variance,
    to_count,
    to_float64,
    to_integer,
)
from normcli.bundles.bundle import Bundle
from normcli.bundles.exact_sums import exact_arrays, exact_from_arrays
from normcli.bundles.json_values import array_to_json
from normcli.bundles.selection import listed
from normcli.bundles.sketch_arrays import (
    as_stored,
    sketch_arrays,
    sketches_from_arrays,
)
from normcli.bundles.statistics_attributes import (
    INTEGERS,
    SKETCH_ITEMS,
    attributes_from_attrs,
    statistics_attrs,
)
from normcli.bundles.wide_arrays import completed_by_sums, with_rests
from normcli.bundles.wide_moving_arrays import MOVING_NAMES, beyond_from_arrays, moving_rests
from normcli.domain.affine import Affine
from normcli.domain.moment_kinds import EXTREMES, kind_of, moments_from, needs_extremes
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.norm_moments import NormMoments, largest_magnitude
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QUANTILE_RESTS, QuantileMoments
from normcli.domain.statistics import Statistics
from normcli.domain.wide_moments import WideMoments
from normcli.errors import InputError

MOMENT_NAMES = Moments.names()
ARRAY_NAMES = (
    "count",
    "mean",
    "m2",
    "variance",
    "minimum",
    "maximum",
    "nonfinite",
    "moving_mean",
    "moving_variance",
    "scale",
    "bias",
)
# Those of one method: of quantiles, and of norms.
METHOD_NAMES = ("lower", "center", "upper", "spread", "rank_error", "norm")
# Those of data that float64 does not hold; see `WideMoments` and `Beyond`.
WIDE_NAMES = ("mean_rest", "m2_scaled", "m2_exponent", *EXTREMES, *QUANTILE_RESTS, *MOVING_NAMES)
_COUNTS = ("count", "nonfinite")
_EXPONENTS = ("m2_exponent", "moving_exponent")


def statistics_bundle(stats: Statistics) -> Bundle:
    """Return statistics as arrays and attributes; only what exists has an array."""
    held: dict[str, np.ndarray | None] = dict.fromkeys((*ARRAY_NAMES, *METHOD_NAMES))
    if stats.moments is not None:
        held.update({name: getattr(stats.moments, name) for name in stats.moments.names()})
        held.update(stats.moments.derived(stats.spec.ddof))
    elif stats.given is not None:
        held["mean"], held["variance"] = stats.given
    scaled = isinstance(stats.moments, WideMoments) and stats.moments.scaled
    if not scaled:
        # These say again what m2 says.
        held.update(m2_scaled=None, m2_exponent=None)
    if not needs_extremes(stats.spec.method, stats.source.dtype):
        held.update(dict.fromkeys(EXTREMES))
    if stats.moving is not None:
        held["moving_mean"], held["moving_variance"] = stats.moving.mean, stats.moving.variance
        held.update(moving_rests(stats.moving.beyond))
    held["scale"], held["bias"] = stats.affine.scale, stats.affine.bias
    if stats.exact is not None:
        held.update(exact_arrays(stats.exact))
    integer_items = False
    if isinstance(stats.moments, QuantileMoments) and stats.moments.sketches is not None:
        sketches = as_stored(stats.moments.sketches)
        held.update(sketch_arrays(sketches))
        integer_items = sketches.dtype is not None
    attrs = statistics_attrs(
        stats.spec,
        stats.source,
        moving=None if stats.moving is None else stats.moving.rule,
        batches=0 if stats.moving is None else stats.moving.batches,
        provenance=stats.provenance,
        has_scale=stats.affine.scale is not None,
        has_bias=stats.affine.bias is not None,
        scaled=scaled,
        integer_items=integer_items,
        moving_scaled="moving_exponent" in held,
    )
    return Bundle({name: values for name, values in held.items() if values is not None}, attrs)


def statistics_document(stats: Statistics) -> dict[str, Any]:
    """Return statistics as the document that a JSON sidecar holds."""
    bundle = statistics_bundle(stats)
    arrays = {name: array_to_json(values) for name, values in bundle.arrays.items()}
    return {**bundle.attrs, "arrays": arrays}


def statistics_from_bundle(bundle: Bundle, path: str) -> Statistics:
    """Return the statistics that a bundle holds.

    Parameters
    ----------
    bundle : Bundle
        What was read.
    path : str
        The file, for messages.

    Raises
    ------
    InputError
        When schema, attributes or arrays are malformed or do not fit each other.
    DataPolicyError
        When a variance is negative.
    """
    about = attributes_from_attrs(bundle.attrs, path)
    arrays = {
        name: to_count(values, f"{path}: {name!r}")
        if name in _COUNTS
        else to_integer(values, f"{path}: {name!r}")
        if name in _EXPONENTS
        else to_float64(values, f"{path}: {name!r}")
        for name, values in bundle.arrays.items()
        if name in (*ARRAY_NAMES, *METHOD_NAMES, *WIDE_NAMES)
    }
    _require_shapes(arrays, len(about.spec.kept), path)
    for name in ("m2", "variance", "moving_variance"):
        if name in arrays and not (name == "variance" and "m2" in arrays):
            require_not_negative_variance(arrays[name], f"{path}: {name!r}")
    for name in ("scale", "bias"):
        if name in arrays:
            require_finite(arrays[name], f"{path}: {name!r}")
    moments = _moments(arrays, about.spec, path)
    if isinstance(moments, QuantileMoments):
        sketches = sketches_from_arrays(
            bundle.arrays,
            moments,
            about.spec.levels,
            path,
            about.source.dtype,
            bundle.attrs.get(SKETCH_ITEMS) == INTEGERS,
        )
        moments = replace(moments, sketches=sketches)
    given = None
    if moments is None and ("mean" in arrays or "variance" in arrays):
        _require_names(arrays, ("mean", "variance"), path)
        given = (arrays["mean"], arrays["variance"])
    moving = _moving(arrays, about.moving, about.batches, path)
    if moments is None and given is None and moving is None:
        raise InputError(
            f"{path} holds neither moments nor a mean and a variance.",
            f"It holds {listed(bundle.arrays)}.",
        )
    affine = Affine(arrays.get("scale"), arrays.get("bias"))
    _require_affine(bundle, affine, path)
    exact = None if moments is None else exact_from_arrays(bundle.arrays, moments, path)
    if moments is not None and exact is not None:
        moments = completed_by_sums(moments, exact, about.spec.method, about.source.dtype, path)
    return Statistics(
        about.spec, about.source, moments, given, moving, affine, about.provenance, exact
    )


def _moments(arrays: dict[str, np.ndarray], spec: NormSpec, path: str) -> Moments | None:
    # A mean alone may be a supplied one; any other array of the moments asks for all of them.
    names = kind_of(spec.method).names()
    if not any(name in arrays for name in names if name != "mean"):
        return None
    _require_names(arrays, names, path)
    moments = with_rests(moments_from(spec, {name: arrays[name] for name in names}), arrays, path)
    seen = moments.count > 0
    _require_none(seen & (moments.minimum > moments.maximum), "minimum", "maximum", path)
    if isinstance(moments, QuantileMoments):
        for (low, below), (high, above) in pairwise(_ascending(moments, spec)):
            # NaN fails this comparison, as it should.
            _require_none(seen & ~(above >= below), low, high, path)
    if isinstance(moments, NormMoments):
        largest = np.where(seen, largest_magnitude(moments), 0.0)
        # Rounded, a norm may be some units in the last place below the largest magnitude.
        short = ~(moments.norm >= largest * (1 - 1e-9)) | ~np.isfinite(moments.norm)
        _require_none(seen & short, "largest magnitude", "norm", path)
    return moments


def _ascending(moments: QuantileMoments, spec: NormSpec) -> list[tuple[str, np.ndarray]]:
    """Return the order statistics with their names, none of which may exceed the next one."""
    inner = [
        (spec.levels[0], "lower quantile", moments.lower),
        (0.5, "median", moments.center),
        (spec.levels[1], "upper quantile", moments.upper),
    ]
    # Both quantiles may be on one side of the median. Equal levels keep the order written here.
    inner.sort(key=lambda quantile: quantile[0])
    return [
        ("minimum", moments.minimum),
        *((name, values) for _, name, values in inner),
        ("maximum", moments.maximum),
    ]


def _require_none(crossed: np.ndarray, low: str, high: str, path: str) -> None:
    if np.any(crossed):
        index = tuple(int(i) for i in np.argwhere(crossed)[0])
        raise InputError(f"{path}: the {low} at {index} is larger than the {high}.")


def _moving(
    arrays: dict[str, np.ndarray], rule: MovingRule | None, batches: int, path: str
) -> MovingStatistics | None:
    if rule is None:
        if any(name in arrays for name in ("moving_mean", "moving_variance", *MOVING_NAMES)):
            raise InputError(f"{path} holds moving statistics, but not how they were kept.")
        return None
    _require_names(arrays, ("moving_mean", "moving_variance"), path)
    mean, variance = arrays["moving_mean"], arrays["moving_variance"]
    return MovingStatistics(rule, mean, variance, batches, beyond_from_arrays(arrays, path))


def _require_names(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: str) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path} lacks {listed(missing)}.", f"It holds {listed(arrays)}.")


def _require_shapes(arrays: dict[str, np.ndarray], ndim: int, path: str) -> None:
    shapes = {name: a.shape for name, a in arrays.items() if name not in ("scale", "bias")}
    for name, shape in shapes.items():
        first = next(iter(shapes))
        if shape != shapes[first]:
            raise InputError(
                f"{path}: {name!r} has shape {shape}, but {first!r} has {shapes[first]}."
            )
        if len(shape) != ndim:
            raise InputError(f"{path}: {name!r} has shape {shape}, but the spec keeps {ndim} axes.")


def _require_affine(bundle: Bundle, affine: Affine, path: str) -> None:
    said = bundle.attrs.get("affine")
    if not isinstance(said, dict):
        return
    for name in ("scale", "bias"):
        held = getattr(affine, name) is not None
        if said.get(name, held) is not held:
            words = ("says that it has", "but does not") if not held else ("denies", "but has it")
            raise InputError(f"{path} {words[0]} a {name}, {words[1]}.")
