"""JSON: attributes at the top, arrays under ``arrays`` with dtype, shape and data.

Plain parameter files are read as well: ``{"scale": [1, 2], "bias": [0, 0]}``, the same inside of
named layers, or one nested list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normcli.bundles.attributes import attributes_text, parse_json
from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import reading, require_file
from normcli.bundles.json_values import (
    array_from_json,
    array_from_numbers,
    array_to_json,
    written_values,
)
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, UsageError

MAX_VALUES = 1_000_000
# Python's objects take about ten times the memory of the text.
_MAX_FILE = 256 * 2**20
_ARRAYS = "arrays"


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read a JSON file.

    Raises
    ------
    InputError
        When it is too large, no strict JSON, or its arrays do not hold what they say.
    """
    size = require_file(path)
    if size > _MAX_FILE:
        raise InputError(
            f"{path} has {size:,} bytes; JSON is read up to {_MAX_FILE:,}.",
            "Use .npz, .h5, .zarr or .safetensors for large arrays.",
        )
    with reading(path, "a JSON file"):
        document = parse_json(Path(path).read_text("utf-8-sig"))
        if isinstance(document, dict) and isinstance(document.get(_ARRAYS), dict):
            return _described(document, path, choose)
        return _plain(document, path, choose)


def write(path: str, bundle: Bundle) -> None:
    """Write attributes and arrays to a JSON file.

    Raises
    ------
    UsageError
        When there are more than a million values, or an attribute is called ``arrays``.
    """
    total = sum(map(written_values, bundle.arrays.values()))
    if total > MAX_VALUES:
        raise UsageError(
            f"{total:,} values are too many for JSON, which normcli writes up to {MAX_VALUES:,}.",
            "Use .zarr, .h5 or .npz.",
        )
    if _ARRAYS in bundle.attrs:
        raise UsageError(f"No attribute of a .json file may be called {_ARRAYS!r}.")
    # Attributes are for people, one a line; the numbers of an array stay on one line.
    head = attributes_text(bundle.attrs, indent=2).removesuffix("}").rstrip()
    lines = [
        f"    {json.dumps(name)}: {json.dumps(array_to_json(values), allow_nan=False)}"
        for name, values in bundle.arrays.items()
    ]
    comma = "," if bundle.attrs else ""
    body = ",\n".join(lines)
    text = f'{head}{comma}\n  "{_ARRAYS}": {{\n{body}\n  }}\n}}\n'
    Path(path).write_text(text, encoding="ascii")


def _described(document: dict[str, Any], path: str, choose: Choose) -> Bundle:
    entries = document.pop(_ARRAYS)
    arrays = {}
    for name in choose(tuple(entries)):
        where = f"{path}: {name!r}"
        if not isinstance(entries[name], dict):
            raise InputError(f"{where} is no object with dtype, shape and data.")
        arrays[name] = array_from_json(entries[name], where)
    return Bundle(arrays, document)


def _plain(document: Any, path: str, choose: Choose) -> Bundle:
    if not isinstance(document, dict):
        return Bundle({n: array_from_numbers(document, path) for n in choose(("",))})
    entries = dict(_numbers(document, ""))
    arrays = {
        name: array_from_numbers(entries[name], f"{path}: {name!r}")
        for name in choose(tuple(entries))
    }
    return Bundle(arrays, {key: text for key, text in document.items() if isinstance(text, str)})


def _numbers(document: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, list) or type(value) in (int, float):
            yield prefix + key, value
