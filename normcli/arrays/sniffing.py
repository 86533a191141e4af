"""What a file is by its first bytes, where its name says something else."""

from __future__ import annotations

import re

from normcli.errors import InputError, NormcliError, SafetyError

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
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"%PDF-", "a PDF file"),
    (b"\x89PNG", "a PNG image"),
    (b"PAR1", "a Parquet file"),
    (b"#!", "a script"),
)
_HINTS = {
    "a classic netCDF 3 file": "Convert it: nccopy -k nc4 IN.nc OUT.nc",
    "an HDF4 file": "Convert it with h4toh5.",
    "a MATLAB file older than v7.3": "Save it again in MATLAB with the option -v7.3.",
    "a Git LFS pointer, not the data itself": "Fetch the data: git lfs pull",
    "a gzip file": "Unpack it first: gunzip",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_CSV = re.compile(rb"[ \t\w.+\-\"']*[,;\t][^\x00-\x08\x0e-\x1f\x80-\xff]*")


def wrong_content(name: str, expected: str, head: bytes) -> NormcliError:
    """Return the error for a file that does not begin like an `expected` file.

    Parameters
    ----------
    name : str
        The file.
    expected : str
        What its name says, with an article.
    head : bytes
        Its first bytes.

    Returns
    -------
    NormcliError
        A SafetyError for pickles, which run code; an InputError for all else.
    """
    if not head:
        return InputError(
            f"{name} is empty, not {expected}.", "Was its download or writing interrupted?"
        )
    if _PICKLE.match(head):
        return pickle_error(name)
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return InputError(
            f"{name} looks like HTML: did a download fail? It is a web page, not {expected}.",
            "Open it in a text editor to see what the server said, and download it again.",
        )
    for magic, kind in _LOOKS:
        if head.startswith(magic):
            return InputError(f"{name} is {kind}, not {expected}.", _HINTS.get(kind))
    line = head.splitlines()[0] if head.splitlines() else head
    if not any(head.strip(b"\0")):
        return InputError(
            f"{name} is full of zeros, not {expected}.", "Was its writing interrupted?"
        )
    if _CSV.fullmatch(line):
        return InputError(
            f"{name} looks like text (CSV), not {expected}.",
            "Convert it: numpy.save('x.npy', numpy.loadtxt('x.csv', delimiter=','))",
        )
    return InputError(f"{name} is not {expected}: its first bytes are {head[:8]!r}.")


def pickle_error(name: str) -> SafetyError:
    """Return the error for a file that would run code when it is loaded."""
    return SafetyError(
        f"{name} contains a pickle; normcli never loads pickles.",
        "Save numbers: numpy.save of a numeric array, or HDF5, or Zarr.",
    )
