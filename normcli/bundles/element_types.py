"""Element types of small arrays: their names in files, and bfloat16 where a format lacks it."""

from __future__ import annotations

import numpy as np

from normcli.domain.dtypes import bfloat16, is_bfloat16, require_real
from normcli.errors import InputError, UsageError

# numpy has no bfloat16 and stores it as two raw bytes, as JAX's and TensorFlow's files show.
RAW_BFLOAT16 = np.dtype("V2")

_NAMES = {"bool", "float16", "float32", "float64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def type_from_name(name: object, where: str) -> np.dtype:
    """Return the type called ``float64``, ``bfloat16`` and so on.

    Raises
    ------
    InputError
        When `name` is no real type.
    """
    if name == "bfloat16":
        return bfloat16()
    if isinstance(name, str) and name in _NAMES:
        return np.dtype(name)
    raise InputError(f"{where} has the dtype {name!r}, which normcli does not read.")


def type_from_storage(dtype: np.dtype, where: str) -> np.dtype:
    """Return the type of elements that are stored as `dtype`.

    Raises
    ------
    InputError
        When they are not real numbers.
    """
    return bfloat16() if dtype == RAW_BFLOAT16 and not dtype.names else require_real(dtype, where)


def from_storage(values: np.ndarray, where: str) -> np.ndarray:
    """Return stored elements as a writable array of real numbers in native byte order."""
    dtype = type_from_storage(values.dtype, where)
    if is_bfloat16(dtype):
        values = values.view(dtype)
    return np.array(values, dtype=dtype.newbyteorder("="), order="C", copy=True)


def to_storage(values: np.ndarray) -> np.ndarray:
    """Return elements as formats with numpy's types store them: dense, bfloat16 as raw bytes."""
    dense = dense_native(values)
    return dense.view(RAW_BFLOAT16) if is_bfloat16(dense.dtype) else dense


def dense_native(values: np.ndarray) -> np.ndarray:
    """Return an array of real numbers in C order and native byte order.

    Raises
    ------
    UsageError
        When the elements are not real numbers.
    """
    values = np.asarray(values)
    try:
        dtype = require_real(values.dtype, "The array")
    except InputError as error:
        raise UsageError(error.message, error.hint) from error
    # np.ascontiguousarray would give an array without axes an axis.
    return np.asarray(values, dtype=dtype.newbyteorder("="), order="C")
