"""Which element types normcli reads and writes, and what each becomes."""

from __future__ import annotations

import numpy as np

from normcli.errors import InputError, UsageError, missing_package

_KINDS = {
    "O": "Python objects",
    "S": "byte strings",
    "U": "strings",
    "T": "strings",
    "M": "dates",
    "m": "time differences",
    "c": "complex numbers",
    "V": "structured or raw records",
}


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether `dtype` is ml_dtypes' bfloat16 (numpy itself has none)."""
    # numpy's types have other kinds; making up a name takes 6 us.
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_float(dtype: np.dtype) -> bool:
    """Whether `dtype` is a floating-point type, bfloat16 included."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def require_real(dtype: np.dtype, what: str) -> np.dtype:
    """Return `dtype` if it holds real numbers that normcli can read.

    Parameters
    ----------
    dtype : numpy.dtype
        Element type of an input.
    what : str
        Name of the input for the message.

    Raises
    ------
    InputError
        For objects, strings, dates, complex numbers, records and types wider than 64 bits.
    """
    if is_bfloat16(dtype):
        return dtype
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return dtype
    hint = "normcli reads bool, integers, float16, bfloat16, float32 and float64."
    if dtype.names:
        hint = f"Store one field as an array of its own; the fields are {', '.join(dtype.names)}."
    elif dtype.kind == "c":
        hint = "Store the real and the imaginary part as arrays of their own."
    kind = _KINDS.get(dtype.kind, "an unsupported type")
    raise InputError(f"{what} holds {kind} (dtype {dtype}), not real numbers.", hint)


def output_dtype(dtype: np.dtype) -> np.dtype:
    """Return the default output type for an input of type `dtype`.

    Floats keep their type and byte order. Integers and bool become float32, or float64 where
    float32 (24 bits of precision) cannot hold every integer of the type.
    """
    if is_float(dtype):
        return dtype
    return np.dtype(np.float64 if dtype.itemsize >= 4 else np.float32)


def parse_dtype(text: str) -> np.dtype:
    """Return the dtype that a user named, such as ``float32`` or ``bfloat16``.

    Raises
    ------
    UsageError
        When the name is unknown or does not name a real type.
    """
    if text == "bfloat16":
        return bfloat16()
    try:
        dtype = np.dtype(text)
        return require_real(dtype, "--dtype")
    except (TypeError, InputError) as error:
        raise UsageError(
            f"{text!r} is not a type normcli writes.",
            "Use float16, float32 or float64.",
        ) from error


def bfloat16() -> np.dtype:
    """Return the bfloat16 dtype of the optional package ml_dtypes.

    Raises
    ------
    InputError
        When ml_dtypes is not installed.
    """
    try:
        import ml_dtypes
    except ImportError as error:
        raise missing_package("bfloat16", "ml_dtypes", "ml") from error
    return np.dtype(ml_dtypes.bfloat16)


def smallest_normal(dtype: np.dtype) -> float:
    """Return the smallest number of a floating-point type that has its full precision."""
    return 2.0**-126 if is_bfloat16(dtype) else float(np.finfo(dtype).smallest_normal)


def spacing(dtype: np.dtype, magnitude: np.ndarray) -> np.ndarray:
    """Return one unit in the last place of `dtype` at each `magnitude`, in float64.

    Integers are spaced by 1. For floats this is ``eps * 2**floor(log2(magnitude))``, and never
    less than the smallest subnormal of the type.
    """
    if not is_float(dtype):
        return np.ones_like(magnitude, dtype=np.float64)
    if is_bfloat16(dtype):
        precision, smallest = 8, 2.0**-133
    else:
        info = np.finfo(dtype)
        precision, smallest = info.nmant + 1, float(info.smallest_subnormal)
    mantissa, exponent = np.frexp(np.abs(magnitude))
    # The exponent of 0 is 0, as if it were a number near 1.
    steps = np.where(mantissa == 0, 0.0, np.ldexp(1.0, exponent - precision))
    return np.maximum(steps, smallest)
