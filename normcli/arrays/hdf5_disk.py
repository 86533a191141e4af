"""The file under HDF5's own writing, which tells HDF5 of no failure and us of the first one.

After a failed write HDF5 2.0 keeps what it could not flush, and dies of it when the interpreter
ends, by a segmentation fault even where the exception was caught. So it is told that all went
well; the first error is kept, and raised when HDF5 has closed the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np


class DiskFile:
    """A file for h5py's driver of file objects.

    Leaving the context raises the first error of the file system.

    Parameters
    ----------
    path : Path
        The file.
    create : bool
        Whether to create it; it must not exist. Else it is opened for reading and writing.

    Attributes
    ----------
    error : OSError or None
        What failed first; nothing is written after it.
    """

    def __init__(self, path: Path, create: bool) -> None:
        flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
        self._descriptor = os.open(path, flags, 0o666)
        self._end = os.fstat(self._descriptor).st_size
        self._position = 0
        self._hole = 0
        self.error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        if self.error is not None:
            raise self.error

    def leave_out(self, zeros: np.ndarray) -> None:
        """Do not write this very buffer: a new file reads as zeros where nothing was written."""
        self._hole = zeros.ctypes.data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, with zeros where the file has nothing."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self._try(os.preadv, [view[done:]], self._position + done)
            if not count:
                view[done:] = bytes(len(view) - done)
                break
            done += count
        self._position += len(view)
        return len(view)

    def read(self, count: int) -> bytes:
        """Return bytes from the position on; h5py knows a file object by this method."""
        data = bytearray(count)
        self.readinto(data)
        return bytes(data)

    def write(self, buffer: Any) -> int:
        """Write a buffer at the position."""
        view = memoryview(buffer).cast("B")
        done = 0
        if self._hole and np.frombuffer(view, np.uint8).ctypes.data == self._hole:
            done = len(view)
        while done < len(view) and self.error is None:
            done += self._try(os.pwrite, view[done:], self._position + done)
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        if self.error is None:
            self._try(os.ftruncate, size)
        self._end = size
        return size

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def _try(self, call: Callable[..., int | None], *arguments: Any) -> int:
        try:
            return call(self._descriptor, *arguments) or 0
        except OSError as error:
            self.error = self.error or error
            return 0
