"""Elements written to their places in a file by `pwrite`, from any thread and any process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum
from normcli.arrays.handles import PerProcess
from normcli.arrays.part_keys import block_key, parse_block_key
from normcli.arrays.runs import byte_view, stored_region
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.publishing import output_error

_AT_ONCE = 1 << 30
# What is summed and then written piece by piece comes from memory once, and from the cache then:
# CRC-32C does 28 GB/s of such pieces, and 13 of more than the cache holds.
_PIECE = 1 << 18
_SMALL_RUN = 1 << 16


class PlaceWriter:
    """Writes bytes to their places in a file that exists.

    Parameters
    ----------
    path : Path
        The file.
    owner : int, optional
        The process that may keep it open; this one where it is None.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self._path = path.absolute()
        self._owner = owner or os.getpid()
        self._file = PerProcess(partial(_open_writer, self._path), os.close)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Lend the descriptor of this process."""
        if os.getpid() == self._owner:
            yield self._file.get()
            return
        # A network file system shows what one machine wrote to the others after the close, so
        # every other process closes after each block.
        file = _open_writer(self._path)
        try:
            yield file
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the handle of this process."""
        self._file.close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _owner=0)


class RawWriter:
    """Writes blocks of one array, whose elements lie contiguously in a file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What messages call it.
    info : ArrayInfo
        The array.
    offset : int
        Where in the file its first element is.
    inner : str
        Name of the array in the container, for the keys of its parts.
    owner : int, optional
        The process that may keep the file open; this one where it is None.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        info: ArrayInfo,
        offset: int,
        inner: str = "",
        owner: int | None = None,
    ) -> None:
        self._name = name
        self._info = info
        self._offset = offset
        self._inner = inner
        self._place = PlaceWriter(path, owner)

    def write(self, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block`, run by run."""
        info = self._info
        region = stored_region(info.shape, block, info.fortran_order)
        ordered = values.T if info.fortran_order else values
        data = np.ascontiguousarray(ordered, info.dtype).reshape(region.extents)
        if not data.size:
            return ()
        axis = region.contiguous_axis()
        checksum = PartChecksum()
        try:
            with self._place.opened() as file:
                for index, element in region.offsets(axis):
                    place: Any = (*index, ...)
                    view = byte_view(data[place])
                    offset = self._offset + element * info.dtype.itemsize
                    if len(view) < _SMALL_RUN:
                        write_all(file, view, offset)
                    else:
                        write_checked(file, view, offset, checksum)
        except OSError as error:
            raise output_error(self._name, error) from error
        if not checksum.nbytes:
            checksum.add(byte_view(data))
        key = block_key(self._inner, block.start, block.stop)
        return (StoredPart(key, data.nbytes, checksum.value),)

    def holds(self, part: StoredPart) -> bool:
        """Whether a part can be one of this array."""
        parsed = parse_block_key(part.key)
        if parsed is None or parsed[0] != self._inner:
            return False
        block = parsed[1]
        inside = len(block.start) == self._info.ndim and all(
            a <= b <= n for a, b, n in zip(block.start, block.stop, self._info.shape, strict=True)
        )
        return inside and part.nbytes == block.size * self._info.dtype.itemsize

    def sync(self) -> None:
        """Make the file durable."""
        try:
            with self._place.opened() as file:
                os.fsync(file)
        except OSError as error:
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Close the handle of this process."""
        try:
            self._place.close()
        except OSError as error:
            raise output_error(self._name, error) from error


def lay_out(path: Path, header: bytes, nbytes: int) -> None:
    """Create a file in its full length: a header, and room for `nbytes` of elements."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = os.open(path, flags, 0o666)
    try:
        os.ftruncate(file, len(header) + nbytes)
        write_all(file, memoryview(header), 0)
    finally:
        os.close(file)


def is_laid_out(path: Path, header: bytes, nbytes: int) -> bool:
    """Whether a file is as `lay_out` makes it, whatever its elements are."""
    try:
        with open(path, "rb") as file:
            return (
                os.fstat(file.fileno()).st_size == len(header) + nbytes
                and file.read(len(header)) == header
            )
    except OSError:
        return False


def holds_all(writers: Iterable[RawWriter], parts: Iterable[StoredPart]) -> bool:
    """Whether each part can be one of these arrays."""
    known = tuple(writers)
    return all(any(writer.holds(part) for writer in known) for part in parts)


def write_all(file: int, view: memoryview, offset: int) -> None:
    """Write all bytes of `view` from `offset` on."""
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done : done + _AT_ONCE], offset + done)


def write_checked(file: int, view: memoryview, offset: int, checksum: PartChecksum) -> None:
    """Write all bytes of `view` from `offset` on, and add them to a checksum."""
    for begin in range(0, len(view), _PIECE):
        piece = view[begin : begin + _PIECE]
        checksum.add(piece)
        write_all(file, piece, offset + begin)


def _open_writer(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
