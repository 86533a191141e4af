"""Frozen dataclasses of plain values as JSON objects, checked by their annotations on reading.

A field that a later version of the dataclass adds needs no change here.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from normcli.errors import InputError, UsageError

_INFINITE = "inf"


def fields_to_json(value: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of a dataclass by name, tuples as lists."""
    names = [f.name for f in fields(value) if f.name not in skip]
    return {name: _plain(getattr(value, name)) for name in names}


def fields_from_json(cls: type, document: Any, where: str, **given: Any) -> Any:
    """Return a dataclass from a JSON object.

    Parameters
    ----------
    cls : type
        The dataclass.
    document : object
        The parsed JSON.
    where : str
        The file and the object, for messages.
    **given
        Fields that are already built; their keys in the document are not looked at.

    Raises
    ------
    InputError
        When a field is missing, unknown, of another type, or refused by the dataclass.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"{where} is no JSON object.")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    unknown = [key for key in document if key not in known]
    if unknown:
        raise InputError(
            f"{where} has the field {unknown[0]!r}, which this version of normcli does not know.",
            "A newer normcli may have written it.",
        )
    values = dict(given)
    for name, f in known.items():
        if name in given:
            continue
        if name in document:
            values[name] = _checked(document[name], hints[name], f"{where}.{name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"{where} has no field {name!r}.")
    try:
        return cls(**values)
    except UsageError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value == math.inf:
        return _INFINITE  # JSON has no number for it.
    return dict(value) if isinstance(value, Mapping) else value


def _checked(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
        origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} is no list.")
        item_hint = typing.get_args(hint)[0]
        return tuple(_checked(item, item_hint, where) for item in value)
    if hint is float and value == _INFINITE:
        return math.inf
    if hint is float and type(value) in (int, float):
        return float(value)
    wanted = origin or hint
    # bool is an int to isinstance, but true is no axis.
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(f"{where} is {value!r}, but must be {_words(wanted)}.")
    return value


def _words(wanted: Any) -> str:
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return words.get(wanted, "a JSON object")
