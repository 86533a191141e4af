"""Input files: what they are before they are opened, and what identifies them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from normcli.errors import InputError

_SAMPLE = 64 * 1024

_LOOKS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "an NPY file"),
    (b"PK\x03\x04", "a ZIP or NPZ file"),
    (b"\x0e\x03\x13\x01", "an HDF4 file"),
    (b"CDF\x01", "a classic netCDF 3 file"),
    (b"CDF\x02", "a classic netCDF 3 file"),
    (b"CDF\x05", "a classic netCDF 3 file"),
    (b"MATLAB 5.0", "a MATLAB file older than v7.3"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80\x04", "a Python pickle, which normcli never loads"),
    (b"\x80\x05", "a Python pickle, which normcli never loads"),
)
_HINTS = {
    "a classic netCDF 3 file": "Convert it: nccopy -k nc4 IN.nc OUT.nc",
    "an HDF4 file": "Convert it with h4toh5.",
    "a MATLAB file older than v7.3": "Save it again in MATLAB with the option -v7.3.",
    "a Git LFS pointer, not the data itself": "Fetch the data: git lfs pull",
}


def require_file(path: Path) -> os.stat_result:
    """Return the status of a regular file, looked at before anything opens it.

    Raises
    ------
    InputError
        When it is missing, unreadable, a folder, a pipe or a device.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.", "Check the name.") from error
    except OSError as error:
        raise read_error(str(path), error) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not a file.")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe or a device.", "Pipe NPY data into '-' instead.")
    return status


def require_folder(path: Path) -> None:
    """Raise InputError unless `path` is a folder."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.", "Check the name.") from error
    except OSError as error:
        raise read_error(str(path), error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is not a folder, so it is not a Zarr store.")


def read_error(name: str, error: OSError) -> InputError:
    """Return the error to raise when reading `name` failed with `error`."""
    return InputError(f"{name} could not be read: {error.strerror or error}.")


def wrong_content(name: str, expected: str, head: bytes) -> InputError:
    """Return the error for a file that does not begin like an `expected` file."""
    if not head:
        return InputError(f"{name} is empty, not {expected}.")
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return InputError(f"{name} looks like a web page, not {expected}.", "Did a download fail?")
    for magic, kind in _LOOKS:
        if head.startswith(magic):
            return InputError(f"{name} is {kind}, not {expected}.", _HINTS.get(kind))
    return InputError(f"{name} is not {expected}: its first bytes are {head[:8]!r}.")


def first_bytes(path: Path, count: int = 512) -> bytes:
    """Return the first bytes of a regular file."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise read_error(str(path), error) from error


def file_identity(path: Path, inner: str = "") -> dict[str, Any]:
    """Return path, size, mtime and a fingerprint of the first and last 64 KiB of a file."""
    status = require_file(path)
    digest = hashlib.sha256(str(status.st_size).encode())
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, status.st_size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise read_error(str(path), error) from error
    return {
        "path": str(path.absolute()),
        "array": inner,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "fingerprint": digest.hexdigest()[:32],
    }
