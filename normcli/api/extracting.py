"""Single values out of a sidecar, or out of any file of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from normcli.bundles.array_checks import require_not_negative_variance, to_count, to_float64
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import read_bundle
from normcli.bundles.selection import listed, split_name
from normcli.bundles.statistics_attributes import (
    SCHEMA,
    StatisticsAttributes,
    attributes_from_attrs,
)
from normcli.bundles.statistics_bundle import ARRAY_NAMES, METHOD_NAMES, statistics_from_bundle
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.wide_moments import SQUARE_ROOT_OF_SMALLEST
from normcli.errors import DataPolicyError, InputError

_SETTINGS: Mapping[str, Callable[[StatisticsAttributes], Any]] = {
    "epsilon": lambda a: a.spec.epsilon,
    "epsilon_placement": lambda a: a.spec.placement,
    "ddof": lambda a: a.spec.ddof,
    "momentum": lambda a: _momentum(a),
    "moving_variance_divisor": lambda a: None if a.moving is None else a.moving.variance,
    "batches": lambda a: _converted(a, "batches") if a.moving is None else a.batches,
    "batch_size": lambda a: None if a.moving is None else list(a.moving.batch_sizes),
    "mode": lambda a: a.spec.mode,
    "method": lambda a: a.spec.method,
    "range": lambda a: None if a.spec.range is None else list(a.spec.range),
    "quantiles": lambda a: None if a.spec.quantiles is None else list(a.spec.quantiles),
    "p": lambda a: a.spec.p,
    "convention": lambda a: a.spec.convention,
    "layout": lambda a: str(a.spec.layout),
    "dimensions": lambda a: None if a.spec.layout.names is None else list(a.spec.layout.names),
    "aggregate": lambda a: list(a.spec.aggregated),
    "kept": lambda a: list(a.spec.kept),
    "scale_axes": lambda a: list(a.spec.scale_axes),
    "groups": lambda a: a.spec.groups,
    "shape": lambda a: list(a.source.shape),
    "dtype": lambda a: "bfloat16" if is_bfloat16(a.source.dtype) else a.source.dtype.name,
    "version": lambda a: a.provenance.get("version"),
    "created": lambda a: a.provenance.get("created"),
    "command": lambda a: a.provenance.get("command"),
}
# All values that statistics may have.
VALUE_NAMES = (*ARRAY_NAMES, *METHOD_NAMES, "std", *_SETTINGS)
# What the names of the command line and of frameworks say otherwise.
_SYNONYMS = {"moving_var": "moving_variance", "var": "variance", "axes": "aggregate"}

# Values that a group has only where it holds finite elements.
_OF_ELEMENTS = ("mean", "variance", "minimum", "maximum")
# What says how they are to be taken.
_BESIDE = ("count", "nonfinite", "m2_exponent", "minimum", "maximum")
_SQUARES_BESIDE = {"moving_variance": ("moving_exponent",)}


def extract_value(path: str, name: str) -> Any:
    """Return one value that a file of statistics or parameters holds.

    Parameters
    ----------
    path : str
        A sidecar, a parameter file or a checkpoint; ``#prefix`` picks a part of it.
    name : str
        ``mean``, ``variance``, ``std``, ``moving-mean``, ``scale``, ``epsilon``, ``momentum``, …;
        dashes and underscores are the same. In a parameter file the name of any array, without
        its layer where only one has that name.

    Returns
    -------
    ndarray, float, int, str, list or None
        None where a setting does not apply, such as the momentum of pooled statistics.

    Raises
    ------
    InputError
        When the file is missing or malformed, or does not hold that value.
    """
    key = name.replace("-", "_")
    key = _SYNONYMS.get(key, key)
    wanted = "variance" if key == "std" else key
    there: list[str] = []

    def choose(names: tuple[str, ...]) -> list[str]:
        there.extend(names)
        beside = _BESIDE if wanted in (*_OF_ELEMENTS, "m2") else _SQUARES_BESIDE.get(wanted, ())
        asked = (name, wanted, *beside)
        held = [own for own in dict.fromkeys(asked) if own in names]
        if not held:
            # Of a model with one layer, the layer need not be named.
            below = [full for full in names if split_name(full)[1] in (name, key)]
            held = below if len(below) == 1 else []
        return held

    bundle = read_bundle(path, choose)
    if bundle.attrs.get("schema") != SCHEMA:
        for own in (name, key):
            if own in bundle.arrays:
                return bundle.arrays[own]
        if bundle.arrays:
            return next(iter(bundle.arrays.values()))
        if len(there) == 1 and there == [""]:
            raise InputError(f"{path} holds one array, which has no name.")
        raise InputError(f"{path} holds no {name!r}.", f"It holds {listed(there, close_to=name)}.")
    if wanted in bundle.arrays:
        values = bundle.arrays[wanted]
        if "m2_exponent" in bundle.arrays and wanted in ("variance", "m2"):
            values = _beyond(values, key, bundle, path)
            return _known(values, bundle, path)
        if wanted in ("variance", "m2"):
            _require_squares(values, key, bundle, path)
        if "moving_exponent" in bundle.arrays and wanted == "moving_variance":
            _require_moving(bundle.arrays["moving_exponent"], path)
        if wanted in _OF_ELEMENTS:
            values = _known(values, bundle, path)
        if key == "std":
            require_not_negative_variance(values, f"{path}: {wanted!r}")
            return np.sqrt(values)
        return values
    about = attributes_from_attrs(bundle.attrs, path)
    if key in _SETTINGS:
        return _SETTINGS[key](about)
    if key in (*ARRAY_NAMES, *METHOD_NAMES) or key == "std":
        raise InputError(f"{path} holds no {key}.", _absence(key))
    raise InputError(
        f"Statistics have no value {name!r}.", f"Names: {listed(VALUE_NAMES, close_to=key)}."
    )


def _known(values: np.ndarray, bundle: Bundle, path: str) -> np.ndarray:
    """Return values of groups, NaN where an apply takes none.

    A sidecar has 0 for the mean of no element, and keeps what is finite under ``--nonfinite
    propagate`` to be merged.
    """
    count, nonfinite = (bundle.arrays.get(name) for name in ("count", "nonfinite"))
    if count is None or nonfinite is None:
        return values
    if not values.shape == count.shape == nonfinite.shape:
        raise InputError(
            f"{path} contradicts itself: its values have shape {values.shape}, 'count' has "
            f"{count.shape} and 'nonfinite' {nonfinite.shape}."
        )
    values = to_float64(values, f"{path}: its values")
    spec = bundle.attrs.get("spec")
    unknown = to_count(count, f"{path}: 'count'") == 0
    if isinstance(spec, Mapping) and spec.get("nonfinite") == "propagate":
        unknown = unknown | (to_count(nonfinite, f"{path}: 'nonfinite'") > 0)
    return np.where(unknown, np.nan, values)


def _beyond(values: np.ndarray, key: str, bundle: Bundle, path: str) -> np.ndarray:
    """Return the standard deviation of data whose squares leave float64; refuse the squares.

    Raises
    ------
    DataPolicyError
        When the squares are asked for.
    """
    exponent = bundle.arrays["m2_exponent"]
    lost = int(np.count_nonzero(exponent))
    if key != "std" and lost:
        raise DataPolicyError(
            f"{path}: the {key} of {lost} of {values.size} groups leaves float64.",
            f"Take the std, which fits: normcli extract {path} std; or m2_scaled and m2_exponent, "
            "of which m2 is m2_scaled * 4**m2_exponent.",
        )
    moments = statistics_from_bundle(read_bundle(path), path)
    assert moments.moments is not None
    return moments.moments.deviation(moments.spec.ddof)


def _require_squares(values: np.ndarray, key: str, bundle: Bundle, path: str) -> None:
    """Refuse squares that leave float64, of norms and quantiles, which fit.

    Raises
    ------
    DataPolicyError
        When there are some.
    """
    low, high = (bundle.arrays.get(name) for name in ("minimum", "maximum"))
    if low is None or high is None or not low.shape == high.shape == values.shape:
        return
    low, high, found = (to_float64(array, f"{path}: {key!r}") for array in (low, high, values))
    with np.errstate(over="ignore", invalid="ignore"):
        spread = high - low
    lost = (high > low) & (np.isinf(found) | (spread < SQUARE_ROOT_OF_SMALLEST))
    if np.any(lost):
        raise DataPolicyError(
            f"{path}: the {key} of {int(lost.sum())} of {lost.size} groups leaves float64.",
            "Fit with --method zscore, whose std fits.",
        )


def _require_moving(exponent: np.ndarray, path: str) -> None:
    """Refuse moving variances that leave float64.

    Raises
    ------
    DataPolicyError
        When there are some.
    """
    lost = int(np.count_nonzero(exponent))
    if lost:
        raise DataPolicyError(
            f"{path}: the moving variance of {lost} of {exponent.size} groups leaves float64.",
            "Take moving_variance_scaled and moving_exponent, of which it is "
            "moving_variance_scaled * 4**moving_exponent.",
        )


def _momentum(about: StatisticsAttributes) -> float | str | None:
    if about.moving is None:
        return _converted(about, "momentum")
    return "cumulative" if about.moving.momentum is None else about.moving.momentum


def _converted(about: StatisticsAttributes, name: str) -> Any:
    """Return what a layer of another program said of its moving statistics, or None."""
    layer = about.provenance.get("converted_from")
    return layer.get(name) if isinstance(layer, dict) else None


def _absence(key: str) -> str:
    if key in ("scale", "bias"):
        return f"None was given: an absent {key} is not the same as ones or zeros."
    if key.startswith("moving"):
        return "Moving statistics are kept by fit --momentum M --batch-size B."
    if key in METHOD_NAMES:
        kept = "Norms are kept by --method lp." if key == "norm" else ""
        return kept or "Quantiles are kept by --method robust."
    return "The statistics were supplied as a mean and a variance, or hold moving ones only."
