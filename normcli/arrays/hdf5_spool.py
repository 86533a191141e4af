"""Encoded chunks kept beside an HDF5 draft until all are there.

An HDF5 file whose writer died cannot be continued, so chunks whose stored size is not known before
go to a spool: a file of records, one for each process, to which is only ever appended. A record
tells its own length and checksum, so that what a killed process left half-written is passed over.
"""

from __future__ import annotations

import os
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum, crc32c, part_checksum
from normcli.arrays.handles import PerProcess
from normcli.arrays.raw_writer import write_all
from normcli.arrays.runs import byte_view

_MAGIC = b"ncsp"
# Magic, bytes of the key, bytes of the payload, filter mask, checksum of the payload.
_HEADER = struct.Struct("<4sHQII")
_SUM = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """One chunk in a spool.

    Attributes
    ----------
    part : StoredPart
        Its key, size and checksum.
    mask : int
        Its HDF5 filter mask.
    path : Path
        The spool.
    offset : int
        Where in it the chunk is.
    """

    part: StoredPart
    mask: int
    path: Path
    offset: int

    def read(self) -> np.ndarray | None:
        """Return the chunk, or None where it is not what was written.

        Raises
        ------
        OSError
            When the file system refuses.
        """
        data = np.empty(self.part.nbytes, np.uint8)
        view = byte_view(data)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset)
            done = 0
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    return None
                done += count
        return data if part_checksum(data) == self.part.crc32c else None


class Spool:
    """Appends records, from any thread and any process.

    Parameters
    ----------
    draft : Path
        The draft that the chunks are for; spools lie beside it.
    """

    def __init__(self, draft: Path) -> None:
        self._draft = draft
        self._owner = os.getpid()
        self._file = PerProcess(partial(_Appender, draft), _Appender.close)

    def append(self, key: str, pieces: tuple[Any, ...], mask: int) -> StoredPart:
        """Keep one stored chunk, given in one or several buffers.

        Raises
        ------
        OSError
            When the file system refuses.
        """
        checksum = PartChecksum()
        views = [memoryview(piece).cast("B") for piece in pieces]
        for view in views:
            checksum.add(view)
        part = StoredPart(key, checksum.nbytes, checksum.value)
        appender = self._file.get()
        appender.append(part, views, mask)
        if os.getpid() != self._owner:
            # A network file system shows what one machine wrote to the others after the close.
            appender.close()
        return part

    def close(self) -> None:
        """Close the handle of this process."""
        self._file.close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _owner=0)


class _Appender:
    """The spool of one process."""

    def __init__(self, draft: Path) -> None:
        name = f"{_prefix(draft)}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._path = draft.with_name(name)
        self._lock = threading.Lock()
        self._end = 0
        self._users = 0
        self._descriptor = -1

    def append(self, part: StoredPart, views: list[memoryview], mask: int) -> None:
        key = part.key.encode()
        header = _HEADER.pack(_MAGIC, len(key), part.nbytes, mask, part.crc32c) + key
        header += _SUM.pack(crc32c(header))
        with self._lock:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
                self._descriptor = os.open(self._path, flags, 0o666)
            descriptor = self._descriptor
            self._users += 1
            offset = self._end
            self._end += len(header) + part.nbytes
            try:
                # Headers are written in order, so that the chain of them has no gap; the chunks
                # themselves may overtake each other.
                write_all(descriptor, memoryview(header), offset)
            except OSError:
                self._end = offset
                self._users -= 1
                raise
        try:
            offset += len(header)
            for view in views:
                write_all(descriptor, view, offset)
                offset += len(view)
        finally:
            with self._lock:
                self._users -= 1

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0 and not self._users:
                os.close(self._descriptor)
                self._descriptor = -1


def spools(draft: Path) -> list[Path]:
    """Return the spools of a draft."""
    if not draft.parent.is_dir():
        return []
    prefix = _prefix(draft)
    return sorted(path for path in draft.parent.iterdir() if path.name.startswith(prefix))


def records(draft: Path) -> Iterator[Record]:
    """Yield the records of all spools; whether the chunk of one is whole shows when it is read.

    Raises
    ------
    OSError
        When the file system refuses.
    """
    for path in spools(draft):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while True:
                fixed = file.read(_HEADER.size)
                if len(fixed) < _HEADER.size:
                    break
                magic, key_bytes, nbytes, mask, checksum = _HEADER.unpack(fixed)
                rest = file.read(key_bytes + _SUM.size)
                if magic != _MAGIC or len(rest) < key_bytes + _SUM.size:
                    break
                key = rest[:key_bytes]
                if _SUM.unpack(rest[key_bytes:]) != (crc32c(fixed + key),):
                    break
                offset = file.tell()
                if offset + nbytes > size:
                    break
                yield Record(StoredPart(key.decode(), nbytes, checksum), mask, path, offset)
                file.seek(offset + nbytes)


def _prefix(draft: Path) -> str:
    return f"{draft.name}.spool-"
