"""An append-only file of checksummed lines: whatever ends a writer, only the last can be torn.

A line is the CRC-32 of its JSON text in eight hexadecimal digits, a space, and the text.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

Line = dict[str, Any]


class JournalFile:
    """The journal of one run, open for appending.

    Parameters
    ----------
    path : Path
        The file.
    keep : int
        Bytes of whole lines that an earlier run left, which stay; anything after them goes.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.ftruncate(self._file, keep)
        os.lseek(self._file, keep, os.SEEK_SET)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines, and make them durable.

        Raises
        ------
        OSError
            When storage fails; what was written of them is ignored by `read_journal`.
        """
        data = memoryview(b"".join(map(_encode, lines)))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; what it holds has been synced, so a failure means nothing."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1


def read_journal(path: Path) -> tuple[list[Line], int]:
    """Return the whole lines of a journal, and how many bytes they take.

    Reading ends at the first line that is torn or damaged. A missing file has no lines.
    """
    lines: list[Line] = []
    good = 0
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:
        return [], 0
    with file:
        for raw in file:
            line = _decode(raw)
            if line is None:
                break
            lines.append(line)
            good += len(raw)
    return lines, good


def _encode(line: Mapping[str, Any]) -> bytes:
    text = json.dumps(line, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(raw: bytes) -> Line | None:
    head, _, text = raw.rstrip(b"\n").partition(b" ")
    try:
        if not raw.endswith(b"\n") or int(head, 16) != zlib.crc32(text):
            return None
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


class _Arrays(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


A = TypeVar("A", bound=_Arrays)


def pack_arrays(value: _Arrays) -> dict[str, Any]:
    """Return a dataclass of arrays as JSON can hold it, to the last bit."""
    return pack_named(value, tuple(f.name for f in fields(value)))


def pack_named(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Return some attributes of an object, which are arrays, as JSON can hold them."""
    packed = {}
    for name in names:
        array = np.asarray(getattr(value, name))
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        packed[name] = [array.dtype.str, list(array.shape), data]
    return packed


def unpack_arrays(kind: type[A], packed: Mapping[str, Any]) -> A:
    """Return what `pack_arrays` packed.

    Raises
    ------
    ValueError
        When it is not what that function writes.
    """
    return kind(**unpack_named(tuple(f.name for f in fields(kind)), packed))


def unpack_named(names: tuple[str, ...], packed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that `pack_named` packed, by name.

    Raises
    ------
    KeyError, TypeError, ValueError
        When they are not what that function writes.
    """
    arrays = {}
    for name in names:
        dtype, shape, data = packed[name]
        flat = np.frombuffer(base64.b64decode(data), np.dtype(dtype))
        arrays[name] = flat.reshape(shape).copy()
    return arrays
