"""The grammar of array names: a file, or a container and a path inside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from normcli.arrays.sniffing import pickle_error
from normcli.errors import InputError, UsageError
from normcli.redaction import redacted

SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".he5": "hdf5",
    ".nc": "hdf5",
    ".nc4": "hdf5",
    ".hdf": "hdf5",
    ".mat": "hdf5",
    ".zarr": "zarr",
}
SUPPORTED = (
    "normcli reads and writes .npy, .npz, .h5 (.hdf5, .he5, .nc, .nc4, .hdf, .mat v7.3) and .zarr, "
    "and '-' is NPY on a pipe; file.h5/name is an array inside a container."
)
_PICKLES = {".pkl", ".pickle", ".joblib"}
_ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class ArrayPath:
    """Where an array is.

    Attributes
    ----------
    text : str
        What the user typed.
    format : {"npy", "npz", "hdf5", "zarr", "stream"}
        Format of the container.
    container : Path
        The file or folder; ``-`` for a stream.
    inner : str
        Path inside the container, without slashes at its ends; empty where none was given.
    """

    text: str
    format: str
    container: Path
    inner: str


def parse_path(text: str, what: str = "input") -> ArrayPath:
    """Return the parts of an array name.

    Parameters
    ----------
    text : str
        ``file.npy``, ``file.h5/group/x``, ``store.zarr``, ``-``, ...
    what : {"input", "output"}
        Which of both it names; decides the error and whether a folder may tell its format.

    Raises
    ------
    InputError
        When the format of an input is unknown.
    SafetyError
        When an input is a pickle by its name.
    UsageError
        When the format of an output is unknown, or the inner path climbs out of its container.
    """
    if text == "-":
        return ArrayPath(text, "stream", Path("-"), "")
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is not a name of an {what}.", SUPPORTED)
    if "://" in text:
        raise _unknown(f"{redacted(text)} is a URL; normcli reads and writes local files.", what)
    parts = Path(text).parts
    border = _border(parts, what)
    if border is None:
        if what == "input" and Path(text).suffix.lower() in _PICKLES:
            raise pickle_error(text)
        if what == "input" and not Path(text).suffix and not os.path.lexists(text):
            raise InputError(
                f"There is no {text}.", f"Check the name, with its suffix. {SUPPORTED}"
            )
        raise _unknown(_complaint(text), what)
    length, kind = border
    inner = [part for part in parts[length:] if part != "."]
    if ".." in inner:
        raise UsageError(
            f"{text} climbs out of its container by '..'.", "Name the array by its plain path."
        )
    if kind == "npy" and inner:
        raise _unknown(f"{text} names something inside a .npy file, which holds one array.", what)
    return ArrayPath(text, kind, Path(*parts[:length]), "/".join(inner))


def is_zarr_folder(path: Path) -> bool:
    """Whether `path` is a folder with Zarr metadata."""
    return any((path / mark).is_file() for mark in _ZARR_MARKS)


def _border(parts: tuple[str, ...], what: str) -> tuple[int, str] | None:
    """Return how many parts name the container, and its format."""
    known = [
        (i + 1, SUFFIXES[Path(part).suffix.lower()])
        for i, part in enumerate(parts)
        if Path(part).suffix.lower() in SUFFIXES
    ]
    for number, (length, kind) in enumerate(known):
        is_last = number == len(known) - 1
        # A plain folder may be called like a container: `runs.zarr/a.npy`.
        if is_last or not _is_plain_folder(Path(*parts[:length])):
            return length, kind
    if what == "input":
        for length in range(1, len(parts) + 1):
            if is_zarr_folder(Path(*parts[:length])):
                return length, "zarr"
    return None


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not is_zarr_folder(path)


def _complaint(text: str) -> str:
    path = Path(text)
    if path.is_dir():
        return f"{text} is a folder without Zarr metadata (zarr.json, .zarray or .zgroup)."
    if path.suffix:
        return f"{text} has a suffix that normcli does not know ({path.suffix})."
    return f"{text} has no suffix that tells its format."


def _unknown(message: str, what: str) -> InputError | UsageError:
    return (InputError if what == "input" else UsageError)(message, SUPPORTED)
