"""The header of NPY, read without believing it and written as numpy writes it."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from normcli.arrays.sniffing import pickle_error, wrong_content
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_bfloat16, require_real
from normcli.errors import InputError, NormcliError, SafetyError, UsageError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_MAX_AXES = 64
# A header of this length is no mistake.
_ABSURD_HEADER = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class NpyHeader:
    """What an NPY header says.

    Attributes
    ----------
    shape : tuple of int
        Extents.
    dtype : numpy.dtype
        Element type as stored.
    fortran_order : bool
        Whether the first axis varies fastest.
    length : int
        Bytes before the first element.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def info(self) -> ArrayInfo:
        """The header as the description of an array."""
        return ArrayInfo(self.shape, self.dtype, fortran_order=self.fortran_order)


def read_header(file: BinaryIO, name: str) -> NpyHeader:
    """Read an NPY header from the present position of `file`.

    Raises
    ------
    InputError
        When it is no NPY header, cut, too long, or describes no array.
    """
    head = file.read(len(_MAGIC) + 2)
    if not head.startswith(_MAGIC):
        raise wrong_content(name, "an NPY file", head + file.read(64))
    version = tuple(head[len(_MAGIC) :])
    if len(version) < 2:
        raise InputError(f"{name} is cut in its NPY header.", "Copy or download it again.")
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise InputError(f"{name} is NPY of an unknown version {'.'.join(map(str, version))}.")
    # The length is checked here, since numpy reads the header before it looks at its limit.
    width, code = (2, "<H") if version == (1, 0) else (4, "<I")
    field = file.read(width)
    length = struct.unpack(code, field)[0] if len(field) == width else 0
    if length > _MAX_HEADER:
        kind = SafetyError if length > _ABSURD_HEADER else InputError
        raise kind(f"{name} has an NPY header of {length} bytes; at most {_MAX_HEADER}.")
    header = file.read(length)
    if len(field) < width or len(header) < length:
        raise InputError(f"{name} is cut in its NPY header.")
    shape, fortran, dtype = _parse(field + header, version, name)
    return NpyHeader(shape, dtype, fortran, len(head) + width + length)


def require_numbers(header: NpyHeader, name: str) -> None:
    """Refuse elements that are no real numbers.

    Raises
    ------
    SafetyError
        When they are Python objects, which NPY keeps as a pickle.
    InputError
        When they are of another type that is not read.
    """
    if header.dtype.hasobject:
        raise pickle_error(f"{name} (dtype {header.dtype}, Python objects)")
    require_real(header.dtype, name)


def too_short(name: str, header: NpyHeader, expected: int, there: int) -> NormcliError:
    """Return the error for an array of which only `there` of `expected` bytes can be there."""
    text = (
        f"{name} is cut: shape {header.shape} of {header.dtype} needs {expected} bytes, "
        f"there are {there}."
    )
    if expected > _GIB and there < expected // 100:
        return SafetyError(f"{text} Nothing was allocated for it.", "Its header may be forged.")
    return InputError(text, "Copy or download it again.")


def write_header(info: ArrayInfo, name: str) -> bytes:
    """Return the NPY header of an array.

    Raises
    ------
    UsageError
        When NPY has no name for the element type.
    """
    if is_bfloat16(info.dtype):
        raise UsageError(
            f"{name} would hold bfloat16, which NPY cannot tell.", "Add --dtype float32."
        )
    fields: dict[str, Any] = {
        "descr": npy_format.dtype_to_descr(info.dtype),
        "fortran_order": info.fortran_order,
        "shape": tuple(int(n) for n in info.shape),
    }
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def _parse(header: bytes, version: tuple[int, ...], name: str) -> tuple[Any, bool, np.dtype]:
    # A version 3 header differs from version 2 by field names in UTF-8 only: never real numbers.
    read = (
        npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read(io.BytesIO(header), max_header_size=_MAX_HEADER)
    except Exception as error:  # a hostile header makes numpy raise nearly anything
        raise InputError(f"{name} has a malformed NPY header: {_one_line(error)}.") from error
    if any(isinstance(n, bool) or n < 0 for n in shape) or len(shape) > _MAX_AXES:
        raise InputError(f"{name} has a malformed NPY header: its shape is {shape}.")
    return shape, fortran, dtype


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
