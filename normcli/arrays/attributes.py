"""Attributes as JSON can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_SKIP = object()
# What describes the stored codes of an array, and is false of its normalized values.
OF_STORED_VALUES = frozenset(
    {
        "scale_factor",
        "add_offset",
        "_FillValue",
        "missing_value",
        "valid_range",
        "valid_min",
        "valid_max",
    }
)


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that JSON can hold, numpy values made plain."""
    plain = {str(name): _plain(value) for name, value in attrs.items()}
    return {name: value for name, value in plain.items() if value is not _SKIP}


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, np.bytes_)):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return _plain_items(value.tolist()) if value.dtype.kind in "biufSUO" else _SKIP
    if isinstance(value, np.generic):
        return _plain(value.item()) if value.dtype.kind in "biufSU" else _SKIP
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return _plain_items(list(value))
    if isinstance(value, Mapping):
        return plain_attrs(value)
    return _SKIP


def _plain_items(items: Any) -> Any:
    if not isinstance(items, list):
        return _plain(items)
    plain = [_plain(item) for item in items]
    return _SKIP if any(item is _SKIP for item in plain) else plain
