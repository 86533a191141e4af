"""HDF5 files and datasets opened with care."""

from __future__ import annotations

from pathlib import Path

import h5py

from normcli.arrays.files import first_bytes, read_error, require_file
from normcli.arrays.hdf5_guard import safe_dataset
from normcli.arrays.rules import InputRules
from normcli.arrays.sniffing import wrong_content
from normcli.errors import InputError, NormcliError
from normcli.retrying import storage_error

_MIB = 1 << 20
# What h5py raises on damaged files; numbers beyond 64 bits signed are the last.
FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError)
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Else a file that asks for an unknown filter makes HDF5 load every library in these folders.
while h5py.h5pl.size():
    h5py.h5pl.remove(0)


def require_hdf5(path: Path) -> Path:
    """Return `path` if it is a regular file that may be HDF5, before a library sees it.

    Raises
    ------
    InputError
        When it is missing, no regular file, or begins like a file of another kind.
    """
    size = require_file(path).st_size
    head = first_bytes(path)
    if head.startswith(_SIGNATURE):
        return path
    # Behind a user block, the signature is at 512 bytes or a power of two times that.
    place = 512
    try:
        with open(path, "rb") as file:
            while place < size:
                file.seek(place)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return path
                place *= 2
    except OSError as error:
        raise read_error(str(path), error) from error
    raise wrong_content(str(path), "an HDF5 file", head)


def open_file(path: Path, cache_bytes: int = _MIB) -> h5py.File:
    """Open a regular file to be read.

    Raises
    ------
    InputError
        When it is missing or damaged.
    """
    require_file(path)
    try:
        return h5py.File(path, "r", rdcc_nbytes=cache_bytes)
    except FAILURES as error:
        raise unreadable(str(path), error) from error


def open_dataset(
    path: Path, inner: str, cache_bytes: int, rules: InputRules
) -> tuple[h5py.File, h5py.Dataset]:
    """Open a file and a dataset in it, as far as the rules let links lead.

    Raises
    ------
    InputError
        When there is no such dataset, or the file is damaged.
    SafetyError
        When its data lie outside of the file.
    """
    file = open_file(path, cache_bytes)
    try:
        return file, safe_dataset(file, inner, str(path), rules=rules)
    except BaseException as error:
        file.close()
        if isinstance(error, NormcliError) or not isinstance(error, Exception):
            raise
        raise unreadable(f"{path}/{inner}", error) from error


def unreadable(name: str, error: Exception) -> NormcliError:
    """Return the error for what HDF5 raised, in one line."""
    reason = " ".join(str(error).split())
    told = storage_error(name, error)
    if told is not None:
        return told
    hint = None
    if "truncated" in reason or "eof" in reason:
        hint = "The file is cut: copy or download it again."
    return InputError(f"{name} could not be read as HDF5: {reason[:300].rstrip('.')}.", hint)
