"""Arrays as JSON numbers and back, bit for bit; NaN and infinities as strings."""

from __future__ import annotations

import base64
from math import prod
from typing import Any

import numpy as np

from normcli.bundles.element_types import dense_native, type_from_name
from normcli.domain.dtypes import is_float
from normcli.errors import InputError

_SPECIAL = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
_MAX_AXES = 32
# Lines of bytes up to this many are for people, and stay numbers.
_SHORT = 64


def array_to_json(values: np.ndarray) -> dict[str, Any]:
    """Return dtype, shape and nested numbers of an array; a line of bytes as text in base64."""
    dense = dense_native(values)
    if _is_bytes(dense):
        text = base64.b64encode(dense.tobytes()).decode()
        return {"dtype": "uint8", "shape": list(dense.shape), "data": text}
    return {"dtype": dense.dtype.name, "shape": list(dense.shape), "data": _nested(dense)}


def array_from_json(entry: dict[str, Any], where: str) -> np.ndarray:
    """Return the array that `array_to_json` described; its data may also be flat.

    Raises
    ------
    InputError
        When dtype, shape and data do not agree.
    """
    missing = [key for key in ("dtype", "shape", "data") if key not in entry]
    if missing:
        raise InputError(f"{where} has no {missing[0]!r}.")
    dtype = type_from_name(entry["dtype"], where)
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"{where} has a shape that is no list of sizes.")
    if isinstance(entry["data"], str) and dtype == np.uint8:
        return _from_text(entry["data"], shape, where)
    found, flat = _flatten(entry["data"], where)
    # Nested lists end at the first axis without elements.
    nested = found == tuple(shape[: len(found)]) and (len(found) == len(shape) or not flat)
    if len(flat) != prod(shape) or not (nested or len(found) == 1):
        raise InputError(f"{where} has shape {tuple(shape)}, but its data have {found}.")
    return _elements(flat, dtype, where).reshape(shape)


def written_values(values: np.ndarray) -> int:
    """Return how many numbers an array is as JSON; eight bytes of text count as one."""
    return values.size // 8 if _is_bytes(values) else values.size


def _is_bytes(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and values.ndim == 1 and values.size > _SHORT


def _from_text(text: str, shape: list[int], where: str) -> np.ndarray:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{where} has text that is no base64.") from error
    if len(data) != prod(shape):
        raise InputError(f"{where} has shape {tuple(shape)}, but its text holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def array_from_numbers(data: Any, where: str) -> np.ndarray:
    """Return plain nested numbers as int64 where all are integers, as float64 otherwise.

    Raises
    ------
    InputError
        When rows differ in length, or something is no number.
    """
    shape, flat = _flatten(data, where)
    kinds = set(map(type, flat))
    dtype: np.dtype = np.dtype(np.float64)
    if kinds == {bool}:
        dtype = np.dtype(bool)
    elif kinds == {int} and min(flat) >= -(2**63) and max(flat) < 2**63:
        dtype = np.dtype(np.int64)
    return _elements(flat, dtype, where).reshape(shape)


def _flatten(data: Any, where: str) -> tuple[tuple[int, ...], list[Any]]:
    shape: list[int] = []
    level = [data]
    while level and any(isinstance(item, list) for item in level):
        lengths = {len(item) if isinstance(item, list) else -1 for item in level}
        if len(lengths) > 1:
            raise InputError(f"{where} has rows of different lengths.")
        if len(shape) == _MAX_AXES:
            raise InputError(f"{where} is nested more than {_MAX_AXES} deep.")
        shape += lengths
        level = [value for item in level for value in item]
    return tuple(shape), level


def _elements(flat: list[Any], dtype: np.dtype, where: str) -> np.ndarray:
    kinds = set(map(type, flat))
    if dtype.kind == "b":
        _require_kinds(kinds, {bool}, "true or false", where)
        return np.array(flat, dtype=bool)
    if not is_float(dtype):
        _require_kinds(kinds, {int}, "integers", where)
        limits = np.iinfo(dtype)
        if flat and not (limits.min <= min(flat) and max(flat) <= limits.max):
            raise InputError(f"{where} has integers that do not fit {dtype}.")
        return np.array(flat, dtype=dtype)
    _require_kinds(kinds, {int, float, str}, "numbers", where)
    if str in kinds:
        unknown = [item for item in flat if isinstance(item, str) and item not in _SPECIAL]
        if unknown:
            raise InputError(f"{where} has {unknown[0][:40]!r} where a number belongs.")
        flat = [_SPECIAL[item] if isinstance(item, str) else item for item in flat]
    try:
        wide = np.array(flat, dtype=np.float64)
    except OverflowError as error:
        raise InputError(f"{where} has an integer beyond float64.") from error
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if np.any(np.isinf(narrow) & ~np.isinf(wide)):
        raise InputError(f"{where} has numbers that do not fit {dtype}.")
    return narrow


def _require_kinds(kinds: set[type], allowed: set[type], words: str, where: str) -> None:
    other = kinds - allowed
    if other:
        raise InputError(f"{where} has a {other.pop().__name__}, but must have {words} only.")


def _nested(values: np.ndarray) -> Any:
    if not is_float(values.dtype):
        return values.tolist()
    wide = values.astype(np.float64)
    if np.all(np.isfinite(wide)):
        return wide.tolist()
    # As an object array the special values become strings at any depth.
    mixed = wide.astype(object)
    for word, mask in (
        ("nan", np.isnan(wide)),
        ("inf", np.isposinf(wide)),
        ("-inf", np.isneginf(wide)),
    ):
        mixed[mask] = word
    return mixed.tolist()
