"""NPY: one array without a name and without attributes."""

from __future__ import annotations

import io
import struct
import warnings
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from normcli.bundles.bundle import Bundle
from normcli.bundles.element_types import from_storage, to_storage, type_from_storage
from normcli.bundles.guards import Allowance, pickle_error, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, UsageError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
# The length of the header, and numpy's parser of what follows, by format version.
_VERSIONS = {
    (1, 0): ("<H", np.lib.format.read_array_header_1_0),
    (2, 0): ("<I", np.lib.format.read_array_header_2_0),
}


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read an NPY file; its array has the empty name.

    Raises
    ------
    InputError
        When the file is malformed or holds something else than real numbers.
    SafetyError
        When it holds Python objects.
    """
    size = require_file(path)
    with reading(path, "an NPY file"), Path(path).open("rb") as file:
        wanted = tuple(choose(("",)))
        return Bundle(
            {name: read_stream(file, size, path, Allowance(path, size)) for name in wanted}
        )


def write(path: str, bundle: Bundle) -> None:
    """Write the only array of `bundle` to an NPY file; its name is not kept.

    Raises
    ------
    UsageError
        When there is not exactly one array, or there are attributes.
    """
    if len(bundle.arrays) != 1:
        raise UsageError(
            f"An .npy file holds one array, not {len(bundle.arrays)}.",
            "Use .npz, .h5, .zarr, .safetensors or .json.",
        )
    if bundle.attrs:
        raise UsageError("An .npy file holds no attributes.", "Use .npz, .h5, .zarr or .json.")
    with Path(path).open("wb") as file:
        write_stream(file, next(iter(bundle.arrays.values())))


def read_stream(stream: IO[bytes], size: int, where: str, allowance: Allowance) -> np.ndarray:
    """Read one array in NPY format from the next `size` bytes of a stream.

    Parameters
    ----------
    stream : binary file
        Positioned at the magic string.
    size : int
        Bytes of the header and the elements together.
    where : str
        The file and the array, for messages.
    allowance : Allowance
        Bytes that may be allocated.
    """
    shape, fortran, dtype, header = _header(stream, size, where)
    if dtype.hasobject:
        raise pickle_error(where)
    type_from_storage(dtype, where)
    nbytes = prod(shape) * dtype.itemsize
    if nbytes != size - header:
        raise InputError(
            f"{where}: shape {shape} and dtype {dtype} need {nbytes:,} bytes of elements, but "
            f"the file has {size - header:,}."
        )
    allowance.take(where, nbytes)
    elements = np.frombuffer(stream.read(nbytes), dtype=dtype)
    return from_storage(elements.reshape(shape, order="F" if fortran else "C"), where)


def stored_shape(path: str) -> tuple[int, ...]:
    """Return the shape of the array in an NPY file; its elements are not read.

    Raises
    ------
    InputError
        When the file is malformed.
    """
    size = require_file(path)
    with reading(path, "an NPY file"), Path(path).open("rb") as file:
        return _header(file, size, path)[0]


def _header(
    stream: IO[bytes], size: int, where: str
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, type, and how many bytes went before the elements."""
    start = stream.read(len(_MAGIC) + 2)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise pickle_error(where)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + 2:
        raise ValueError("it does not start as NPY does")
    version = (start[-2], start[-1])
    if version not in _VERSIONS:
        raise ValueError(f"its NPY version {version[0]}.{version[1]} is unknown")
    layout, parse = _VERSIONS[version]
    length = stream.read(struct.calcsize(layout))
    header = struct.unpack(layout, length)[0]
    # numpy reads what the length says before it looks whether that is too much.
    if header > min(_MAX_HEADER, size):
        raise ValueError(f"its header says to be {header:,} bytes long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A header written by Python 2 is read all the same.
        shape, fortran, dtype = parse(io.BytesIO(length + stream.read(header)))
    return shape, fortran, dtype, len(start) + len(length) + header


def write_stream(stream: IO[bytes], values: np.ndarray) -> None:
    """Write one array in NPY format."""
    stored = to_storage(values)
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(stored))
    # numpy's own writer hides why storage failed.
    stream.write(stored.reshape(-1).view(np.uint8).data)
