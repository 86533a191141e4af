"""Extracted values as text, as JSON and in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from normcli.api.extracting import VALUE_NAMES
from normcli.bundles.attributes import parse_json
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import FORMATS, publish_file, write_bundle
from normcli.bundles.json_values import array_to_json
from normcli.bundles.replacing import holds_array, names_inside, refuse_foreign
from normcli.errors import UsageError

TEXT_SUFFIX = ".txt"
VALUE_SCHEMA = "normcli-value"
_LONGEST_TEXT = 256 * 2**20


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
        known = (own, *VALUE_NAMES)
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


def _number(item: Any) -> str:
    return str(int(item)) if item.dtype.kind in "iub" else repr(float(item))
