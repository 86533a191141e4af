"""Attributes as JSON text, which every format can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from normcli.errors import InputError, UsageError

# The member, attribute or metadata key that holds them.
ATTRIBUTES = "normcli"


def attributes_text(attrs: Mapping[str, Any], indent: int | None = None) -> str:
    """Return attributes as one JSON object in ASCII, without NaN literals.

    Raises
    ------
    UsageError
        When a value is none that JSON can hold.
    """
    try:
        return json.dumps(dict(attrs), allow_nan=False, default=_plain, indent=indent)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The attributes cannot be written as JSON: {error}.") from error


def attributes_from_text(text: Any, path: str) -> dict[str, Any]:
    """Return the attributes that `text` holds.

    Raises
    ------
    InputError
        When it is no JSON object, or names a key twice.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if not isinstance(text, str):
        raise InputError(f"{path}: the attributes {ATTRIBUTES!r} are no text.")
    attrs = parse_json(text)
    if not isinstance(attrs, dict):
        raise InputError(f"{path}: the attributes {ATTRIBUTES!r} are no JSON object.")
    return attrs


def parse_json(text: str, constants: bool = False) -> Any:
    """Return what a JSON text holds, more strictly than Python's own parser.

    Parameters
    ----------
    text : str
        The document.
    constants : bool
        Whether the literals NaN and Infinity, which JSON does not have, are let through.

    Raises
    ------
    ValueError
        For a repeated key, a number beyond float64, a NaN literal, or broken syntax.
    """
    return json.loads(
        text,
        object_pairs_hook=_unique,
        parse_float=_finite,
        parse_constant=None if constants else _no_constant,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is beyond float64")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f'the literal {text} is not JSON; write "nan", "inf" or "-inf" in quotes')


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")
