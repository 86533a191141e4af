"""Manifests: what an output is made of, down to the byte, in a file beside it.

JSON lines: a header, one line for each stored part in the order of their keys, and a last line
with the checksum of everything before, so that a manifest that was cut or edited is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import crc32c
from normcli.arrays.files import read_error
from normcli.domain.array_info import ArrayInfo
from normcli.domain.losses import Losses
from normcli.domain.moments import Moments
from normcli.errors import DataPolicyError, InputError
from normcli.publishing import Draft, output_error
from normcli.retrying import retried

SUFFIX = ".manifest.jsonl"
FORMAT = "normcli-manifest"
VERSION = 1
_LONGEST_HEADER = 1 << 24
_LONGEST_LINE = 1 << 17
_COUNTS = ("count", "nonfinite")


@dataclass(frozen=True)
class Manifest:
    """What an output is made of.

    Attributes
    ----------
    container : {"npy", "npz", "hdf5", "zarr"}
        Its format.
    arrays : mapping of str to mapping
        ``shape``, ``dtype``, ``chunks`` and ``shards`` of each array, by its path inside.
    parts : tuple of StoredPart
        Every byte of it, in the order of keys.
    written : mapping of str to Moments
        Moments of all elements of an array as one group, as far as they are known.
    version : str
        The normcli that wrote it.
    losses : mapping of str to Losses
        Results that the type of an array could not hold, where any were counted.
    """

    container: str
    arrays: Mapping[str, Mapping[str, Any]]
    parts: tuple[StoredPart, ...]
    written: Mapping[str, Moments] = field(default_factory=dict)
    version: str = ""
    losses: Mapping[str, Losses] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        container: str,
        arrays: Mapping[str, ArrayInfo],
        parts: Iterable[StoredPart],
        written: Mapping[str, Moments],
        version: str,
        losses: Mapping[str, Losses] | None = None,
    ) -> Manifest:
        """Return the manifest of arrays whose parts are known, each part once.

        Parameters
        ----------
        container : {"npy", "npz", "hdf5", "zarr"}
            Format of the output.
        arrays : mapping of str to ArrayInfo
            Its arrays, by their paths inside.
        parts : iterable of StoredPart
            What writing and sealing returned; of a part written again, the last one counts.
        written : mapping of str to Moments
            Moments of all elements of an array, by the same paths.
        version : str
            Version of normcli.
        losses : mapping of str to Losses, optional
            Results that the type of an array could not hold.
        """
        known = {part.key: part for part in parts}
        described = {inner: _described(info) for inner, info in arrays.items()}
        ordered = tuple(known[key] for key in sorted(known))
        counted = {inner: lost for inner, lost in (losses or {}).items() if lost}
        return cls(container, described, ordered, dict(written), version, counted)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)


def manifest_path(output: Path | str) -> Path:
    """Return the name of the manifest of an output."""
    path = Path(output)
    return path.with_name(path.name + SUFFIX)


def write_manifest(path: Path | str, manifest: Manifest, overwrite: bool = False) -> None:
    """Write a manifest, all at once.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    OutputError
        When storage fails; nothing is left then.
    """
    draft = draft_manifest(path, manifest, overwrite)
    try:
        draft.publish()
    except BaseException:
        draft.discard()
        raise


def draft_manifest(
    path: Path | str, manifest: Manifest, overwrite: bool = False, folder: Path | None = None
) -> Draft:
    """Write a manifest as a complete draft, which the caller publishes or discards.

    Parameters
    ----------
    path, manifest, overwrite
        As of `write_manifest`.
    folder : Path, optional
        Where to write the draft; beside `path` without it.

    Raises
    ------
    UsageError, OutputError
        As `write_manifest`.
    """
    draft = Draft.beside(path, overwrite, folder)
    try:
        with open(draft.path, "xb") as file:
            checksum = 0
            for line in _lines(manifest):
                checksum = crc32c(line, checksum)
                file.write(line)
            file.write(_line({"end": True, "parts": len(manifest.parts), "crc32c": _hex(checksum)}))
        draft.sync()
    except OSError as error:
        draft.discard()
        raise output_error(path, error) from error
    except BaseException:
        draft.discard()
        raise
    return draft


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest.

    Raises
    ------
    InputError
        When it cannot be read, or is of a later version.
    DataPolicyError
        When it is not as it was written.
    TransientError
        When storage fails again and again.
    """

    def attempt() -> Manifest:
        with open(path, "rb") as file:
            return _read(file, str(path))

    try:
        return retried(attempt, str(path))
    except OSError as error:
        raise read_error(str(path), error) from error


def is_manifest(path: Path | str) -> bool:
    """Whether a file begins as a manifest of any version does."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline(_LONGEST_HEADER))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("format") == FORMAT


def _lines(manifest: Manifest) -> Iterator[bytes]:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "normcli": manifest.version,
        "container": manifest.container,
        "arrays": {inner: dict(about) for inner, about in manifest.arrays.items()},
        "written": {inner: _plain(moments) for inner, moments in manifest.written.items()},
        "parts": len(manifest.parts),
        "nbytes": manifest.nbytes,
    }
    if manifest.losses:
        header["losses"] = {inner: lost.as_dict() for inner, lost in manifest.losses.items()}
    yield _line({**header, "crc32c": _hex(crc32c(_line(header)))})
    for part in manifest.parts:
        yield _line({"key": part.key, "nbytes": part.nbytes, "crc32c": _hex(part.crc32c)})


def _read(file: BinaryIO, name: str) -> Manifest:
    first = file.readline(_LONGEST_HEADER)
    header = _object(first, name, 1)
    if header.get("format") != FORMAT:
        raise _damaged(name, "its first line is no header")
    given = header.pop("crc32c", None)
    try:
        checksum = crc32c(_line(header))
    except ValueError as error:  # an infinity, which JSON has not and Python reads
        raise _damaged(name, "its header is malformed") from error
    if given != _hex(checksum):
        raise _damaged(name, "its header fails its checksum")
    if header.get("version") != VERSION:
        raise InputError(
            f"{name} is a manifest of version {header.get('version')}; "
            f"this normcli reads version {VERSION}.",
            "Use a newer normcli.",
        )
    parts: list[StoredPart] = []
    checksum = crc32c(first)
    number = 1
    while True:
        number += 1
        line = file.readline(_LONGEST_LINE)
        values = _object(line, name, number)
        if "end" in values:
            break
        part = _part(values, name, number)
        if parts and part.key <= parts[-1].key:
            raise _damaged(name, f"line {number} is out of order")
        parts.append(part)
        checksum = crc32c(line, checksum)
    end = {"end": True, "parts": len(parts), "crc32c": _hex(checksum)}
    if values != end or file.read(1) or header.get("parts") != len(parts):
        raise _damaged(name, "its last line does not fit the others")
    try:
        written = {inner: _moments(plain) for inner, plain in header["written"].items()}
        counts = header.get("losses", {})
        losses = {inner: Losses(**_counts(plain)) for inner, plain in counts.items()}
        return Manifest(
            str(header["container"]),
            header["arrays"],
            tuple(parts),
            written,
            header["normcli"],
            losses,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(name, f"its header is malformed ({error})") from error


def _part(values: Mapping[str, Any], name: str, number: int) -> StoredPart:
    key, nbytes, checksum = (values.get(n) for n in ("key", "nbytes", "crc32c"))
    sound = (
        isinstance(key, str)
        and isinstance(nbytes, int)
        and isinstance(checksum, str)
        and nbytes >= 0
        and len(values) == 3
    )
    try:
        if sound:
            return StoredPart(str(key), int(nbytes or 0), int(str(checksum), 16))
    except ValueError:
        pass
    raise _damaged(name, f"line {number} is malformed")


def _object(line: bytes, name: str, number: int) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _damaged(name, f"it ends in line {number}" if line else f"it ends at line {number}")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"line {number} is no JSON") from error
    if not isinstance(values, dict):
        raise _damaged(name, f"line {number} is malformed")
    return values


def _damaged(name: str, what: str) -> DataPolicyError:
    return DataPolicyError(
        f"{name} is not as it was written: {what}.",
        "Without it only the output's own checksums can be compared: move it away for that.",
    )


def _described(info: ArrayInfo) -> dict[str, Any]:
    return {
        "shape": list(info.shape),
        "dtype": info.dtype.str,
        "chunks": None if info.chunks is None else list(info.chunks),
        "shards": None if info.shards is None else list(info.shards),
    }


def _plain(moments: Moments) -> dict[str, Any]:
    values = {f.name: getattr(moments, f.name).item() for f in fields(Moments)}
    # JSON has no infinity, which is the minimum of nothing.
    return {name: value if np.isfinite(value) else repr(value) for name, value in values.items()}


def _moments(plain: Mapping[str, Any]) -> Moments:
    return Moments(
        **{
            f.name: np.asarray(plain[f.name], np.int64)
            if f.name in _COUNTS
            else np.asarray(float(plain[f.name]))
            for f in fields(Moments)
        }
    )


def _counts(plain: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in plain.items()}


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _hex(checksum: int) -> str:
    return f"{checksum:08x}"
