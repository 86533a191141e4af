"""Single values out of a sidecar, or out of any file of parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.array_checks import require_not_negative_variance, to_count, to_float64
from normcli.bundles.attributes import parse_json
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import FORMATS, publish_file, read_bundle, write_bundle
from normcli.bundles.json_values import array_to_json
from normcli.bundles.replacing import holds_array, names_inside, refuse_foreign
from normcli.bundles.selection import listed, split_name
from normcli.bundles.statistics_attributes import (
    SCHEMA,
    StatisticsAttributes,
    attributes_from_attrs,
)
from normcli.bundles.statistics_bundle import ARRAY_NAMES, METHOD_NAMES, statistics_from_bundle
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.wide_moments import SQUARE_ROOT_OF_SMALLEST
from normcli.errors import DataPolicyError, InputError, UsageError

TEXT_SUFFIX = ".txt"
VALUE_SCHEMA = "normcli-value"
_LONGEST_TEXT = 256 * 2**20

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
    names = (*ARRAY_NAMES, *METHOD_NAMES, "std", *_SETTINGS)
    raise InputError(
        f"Statistics have no value {name!r}.", f"Names: {listed(names, close_to=key)}."
    )


def value_text(value: Any) -> str:
    """Return a value as text: one number a line, of higher dimensions the last axis on one line."""
    if value is None:
        return "none"
    if isinstance(value, np.ndarray):
        rows = value.reshape(-1, value.shape[-1]) if value.ndim > 1 else value.reshape(-1, 1)
        return "\n".join(" ".join(_number(item) for item in row) for row in rows)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def value_json(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers and nested lists; NaN as a string."""
    return array_to_json(value)["data"] if isinstance(value, np.ndarray) else value


def write_value(path: str, name: str, value: Any, overwrite: bool = False) -> None:
    """Write a value to a file: .txt as `value_text`, .json plain, the others as an array.

    Raises
    ------
    UsageError
        When the suffix is unknown, the file exists, or the value is text and the format binary.
    OutputError
        When storage fails; nothing is left then.
    """
    suffix = Path(path).suffix.lower()
    if suffix == TEXT_SUFFIX:
        text = f"{value_text(value)}\n"
        refuse_foreign(path, overwrite, "a value", lambda file: _is_value_text(file, text))
        publish_file(path, text.encode(), overwrite)
    elif suffix == ".json":
        text = json.dumps(value_json(value), allow_nan=False)
        refuse_foreign(path, overwrite, "a value", _is_value_json)
        publish_file(path, f"{text}\n".encode(), overwrite)
    elif suffix in FORMATS:
        attrs = {} if suffix in (".npy", ".npz") else {"schema": VALUE_SCHEMA}
        array, own = value_array(name, value), name.replace("-", "_")
        known = (own, *ARRAY_NAMES, *METHOD_NAMES, "std", *_SETTINGS)
        refuse_foreign(
            path,
            overwrite,
            "such a value",
            lambda file: (
                names_inside(file)[1].get("schema") == VALUE_SCHEMA
                if attrs
                else holds_array(file, known, array.shape)
            ),
        )
        write_bundle(path, Bundle({own: array}, attrs), overwrite)
    else:
        raise UsageError(
            f"The suffix of {path} tells no format that normcli writes.",
            f"Known suffixes: {TEXT_SUFFIX} {' '.join(FORMATS)}.",
        )


def _is_value_text(path: str, new: str) -> bool:
    """Whether a text is numbers alone or, where a text is to replace it, a single line."""
    if Path(path).stat().st_size > _LONGEST_TEXT:
        return False
    text = Path(path).read_text("utf-8")
    return _are_numbers(text) or (not _are_numbers(new) and text.count("\n") <= 1)


def _are_numbers(text: str) -> bool:
    try:
        for word in text.split():
            if word != "none":
                float(word)
    except ValueError:
        return False
    return True


def _is_value_json(path: str) -> bool:
    """Whether a document is what `value_json` returns: no object, and lists of these alone."""
    document = parse_json(Path(path).read_text("utf-8"))
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            return False
        if isinstance(item, list):
            waiting += item
    return True


def value_array(name: str, value: Any) -> np.ndarray:
    """Return a value as an array.

    Raises
    ------
    UsageError
        When it is text or absent.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biufV":
        raise UsageError(
            f"The value {name!r} is {value_text(value)!r}, not numbers.",
            "Print it, or write .json or .txt.",
        )
    return array


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


def _number(item: Any) -> str:
    return str(int(item)) if item.dtype.kind in "iub" else repr(float(item))


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
