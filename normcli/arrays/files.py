"""Input files: what they are before they are opened, and what identifies them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from normcli.errors import InputError, NormcliError, TransientError, missing_file
from normcli.retrying import PASSING, STORAGE, retried

_SAMPLE = 64 * 1024


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
        raise missing_file(path) from error
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
        raise missing_file(path) from error
    except OSError as error:
        raise read_error(str(path), error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is not a folder, so it is not a Zarr store.")


def read_error(name: str, error: OSError) -> NormcliError:
    """Return the error to raise when reading `name` failed with `error`."""
    message = f"{name} could not be read: {error.strerror or error}."
    if error.errno in PASSING:
        return TransientError(message, STORAGE)
    return InputError(message)


def first_bytes(path: Path, count: int = 512) -> bytes:
    """Return the first bytes of a regular file."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise read_error(str(path), error) from error


def sampled_whole(path: Path, size: int) -> bool:
    """Whether the fingerprint of a file of `size` bytes covers every byte; no folder's does."""
    return size <= 2 * _SAMPLE and path.is_file()


def file_identity(path: Path, inner: str = "") -> dict[str, Any]:
    """Return path, size, mtime and a fingerprint of the first and last 64 KiB of a file."""
    status = require_file(path)

    def sampled() -> str:
        digest = hashlib.sha256(str(status.st_size).encode())
        with open(path, "rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, status.st_size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
        return digest.hexdigest()[:32]

    try:
        fingerprint = retried(sampled, str(path))
    except OSError as error:
        raise read_error(str(path), error) from error
    return {
        "path": str(path.absolute()),
        "array": inner,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "fingerprint": fingerprint,
    }
