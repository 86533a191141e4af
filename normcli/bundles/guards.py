"""What is checked before and around reading a small file that somebody else may have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normcli.errors import InputError, NormcliError, SafetyError, TransientError, missing_file
from normcli.retrying import storage_error

# Bundles live in memory; a file beyond this is data, not statistics or parameters.
MAX_BYTES = 4 * 2**30
_GIB = 2**30
# The best that a codec of ours does on zeros; more than this is a claim, not data.
_MAX_RATIO = 50_000


def require_file(path: str) -> int:
    """Return the size of a regular file in bytes.

    Raises
    ------
    InputError
        When it is missing, or something else than a file (opening a pipe would hang).
    """
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file.")
    return status.st_size


def require_folder(path: str) -> None:
    """Raise InputError unless `path` is a folder."""
    if not stat.S_ISDIR(_status(path).st_mode):
        raise InputError(f"{path} is a file, but a Zarr store is a folder.", foreign_hint(path))


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except (OSError, ValueError) as error:
        _raise_passing(path, error)
        raise InputError(f"{path} cannot be read: {one_line(error)}.") from error


class Allowance:
    """Bytes that a file may still ask for, checked before anything is allocated.

    Parameters
    ----------
    path : str
        The file, for messages.
    stored : int
        Bytes that it takes in storage.
    """

    def __init__(self, path: str, stored: int) -> None:
        self.path = path
        self.stored = stored
        self.used = 0

    def take(self, name: str, nbytes: int) -> None:
        """Grant `nbytes` to the array `name`.

        Raises
        ------
        InputError
            When the arrays are too large for memory, or for the file that they are said to be in.
        """
        self.used += nbytes
        if nbytes > _GIB and nbytes > _MAX_RATIO * self.stored:
            raise InputError(
                f"{self.path}: {name!r} promises {nbytes:,} bytes, but only {self.stored:,} "
                "are stored."
            )
        if self.used > MAX_BYTES:
            raise InputError(
                f"{self.path} holds {self.used:,} bytes or more; statistics and parameters are "
                f"read into memory up to {MAX_BYTES:,}.",
                "Name the part that is needed: FILE#PREFIX.",
            )


@contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a malformed file into InputError.

    What storage raises that may work a moment later becomes TransientError.

    Parameters
    ----------
    path : str
        The file, for the message.
    kind : str
        What it should be, with its article.
    """
    try:
        yield
    except NormcliError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply.") from error
    except Exception as error:
        # Parsers of hostile files raise anything (KeyError, struct.error, zlib.error, ...).
        _raise_passing(path, error)
        raise InputError(
            f"{path} is not {kind} that can be read: {one_line(error)}.", foreign_hint(path)
        ) from error


def _raise_passing(path: str, error: BaseException) -> None:
    """Raise TransientError where storage failed, and may work a moment later."""
    found = storage_error(path, error)
    if isinstance(found, TransientError):
        raise found from error


def one_line(error: BaseException) -> str:
    """Return the text of an error as one short printable line without its final period."""
    text = " ".join(str(error).split()) or type(error).__name__
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable[:200].rstrip(".")


def foreign_hint(path: str) -> str | None:
    """Return what a malformed file looks like, where its first bytes tell."""
    try:
        if not Path(path).is_file():
            return None  # Opening a pipe would wait for its writer.
        with Path(path).open("rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if not head:
        return "The file is empty."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "It looks like HTML or XML: did a download fail?"
    if head.startswith(b"version https://git-lfs"):
        return "It is a Git LFS pointer: git lfs pull fetches the file itself."
    for magic, kind in (
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x03\x04", "a zip archive (as .npz is)"),
        (b"\x93NUMPY", "an NPY file"),
    ):
        if head.startswith(magic):
            return f"By its first bytes it is {kind}."
    return None


def pickle_error(where: str) -> SafetyError:
    """Return the error for a file that would run code when it is loaded."""
    return SafetyError(
        f"{where} contains a pickle; normcli never loads pickles.",
        "Save numbers: numpy.savez without object arrays, or .safetensors, .h5, .zarr, .json.",
    )
