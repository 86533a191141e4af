"""What arrays of statistics and parameters must be, whatever file they came from."""

from __future__ import annotations

import numpy as np

from normcli.domain.dtypes import is_float, require_real
from normcli.errors import DataPolicyError, InputError


def to_float64(values: np.ndarray, where: str) -> np.ndarray:
    """Return integers or floats as float64.

    Raises
    ------
    InputError
        When they are anything else; bool too, which is no number.
    """
    dtype = require_real(values.dtype, where)
    if dtype.kind == "b":
        raise InputError(f"{where} holds bool, not numbers.")
    return np.asarray(values, dtype=np.float64, order="C")


def to_count(values: np.ndarray, where: str) -> np.ndarray:
    """Return counts as int64.

    Raises
    ------
    InputError
        When they are no integers, negative, or beyond int64.
    """
    if is_float(values.dtype) or values.dtype.kind not in "iu":
        raise InputError(f"{where} holds {values.dtype}, but counts are integers.")
    if values.size and (int(values.min()) < 0 or int(values.max()) >= 2**63):
        raise InputError(f"{where} holds counts that are negative or too large.")
    return np.asarray(values, dtype=np.int64, order="C")


def to_integer(values: np.ndarray, where: str) -> np.ndarray:
    """Return signed integers as int64.

    Raises
    ------
    InputError
        When they are of another type.
    """
    if values.dtype.kind != "i":
        raise InputError(f"{where} holds {values.dtype}, not signed integers.")
    return np.asarray(values, dtype=np.int64, order="C")


def require_finite(values: np.ndarray, where: str) -> None:
    """Raise InputError when a value is NaN or infinite."""
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nan or infinite:
        raise InputError(
            f"{where} holds {nan} NaN and {infinite} infinite values among {values.size}."
        )


def require_not_negative_variance(values: np.ndarray, where: str) -> None:
    """Raise DataPolicyError when a variance (or a sum of squares) is negative."""
    negative = np.argwhere(values < 0)
    if len(negative):
        index = tuple(int(i) for i in negative[0])
        raise DataPolicyError(
            f"{where} holds {len(negative)} negative values among {values.size}, the first "
            f"{float(values[index])!r} at index {index}; a variance is never negative.",
            "Was a standard deviation, a logarithm or another array taken for the variance?",
        )
