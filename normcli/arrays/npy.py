"""NPY files read by `pread` and written by `pwrite`, never mapped.

A mapped file that another process truncates kills the reader by SIGBUS; a short `pread` is an error
that can be told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import file_identity, read_error, require_file
from normcli.arrays.handles import PerProcess
from normcli.arrays.npy_format import NpyHeader, read_header, write_header
from normcli.arrays.runs import Region, byte_view
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.domain.grid import Block
from normcli.errors import InputError
from normcli.publishing import Draft, output_error

_AT_ONCE = 1 << 30


class RawSource:
    """Elements that lie contiguously in a file, after a header.

    Parameters
    ----------
    name : str
        What messages call the array.
    path : Path
        The file.
    header : NpyHeader
        Shape, type and order; its length counts from `base`.
    base : int
        Where in the file the header starts.
    inner : str
        Name of the array inside the file, for its identity.
    """

    def __init__(
        self, name: str, path: Path, header: NpyHeader, base: int = 0, inner: str = ""
    ) -> None:
        require_real(header.dtype, name)
        self.name = name
        self.info = header.info
        self._path = path.absolute()
        self._inner = inner
        self._offset = base + header.length
        self._file = PerProcess(partial(_open_reader, self._path), os.close)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in Fortran order where the file has it."""
        stored = self.info.dtype
        region = _region(self.info.shape, block, self.info.fortran_order)
        values = block_array(region.extents, stored, buffer)
        if values.size:
            self._fill(values, region)
        if not stored.isnative:
            values = values.byteswap(inplace=True).view(stored.newbyteorder("="))
        return values.T if self.info.fortran_order else values

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, mtime and fingerprint of the file."""
        return (file_identity(self._path, self._inner),)

    def close(self) -> None:
        """Close the handle of this process."""
        self._file.close()

    def _fill(self, values: np.ndarray, region: Region) -> None:
        itemsize = values.itemsize
        whole = region.contiguous_axis()
        axis = region.cheapest_axis(itemsize)
        for index, element in region.offsets(axis):
            place: Any = (*index, ...)  # a view also where an array has no axes
            target = values[place]
            offset = self._offset + element * itemsize
            if axis == whole:
                self._read_into(target, offset)
            else:
                self._read_and_cut(target, offset, region, axis)

    def _read_and_cut(self, target: np.ndarray, offset: int, region: Region, axis: int) -> None:
        inner = region.shape[axis + 1 :]
        cut = tuple(map(slice, region.start[axis + 1 :], region.stop[axis + 1 :]))
        rows = region.piece_rows(axis, target.itemsize)
        row_bytes = prod(inner) * target.itemsize
        pieces = np.empty((min(rows, len(target)), *inner), target.dtype)
        for first in range(0, len(target), rows):
            count = min(rows, len(target) - first)
            piece = pieces[:count]
            self._read_into(piece, offset + first * row_bytes)
            target[first : first + count] = piece[(slice(None), *cut)]

    def _read_into(self, target: np.ndarray, offset: int) -> None:
        file = self._file.get()
        view = byte_view(target)
        done = 0
        while done < len(view):
            try:
                count = os.preadv(file, [view[done : done + _AT_ONCE]], offset + done)
            except OSError as error:
                raise read_error(self.name, error) from error
            if count == 0:
                raise InputError(
                    f"{self.name} ended at byte {offset + done} while it was read; "
                    f"it was {self._offset + self.info.nbytes} bytes long.",
                    "Do not change an input while normcli reads it.",
                )
            done += count


class NpySource(RawSource):
    """An NPY file.

    Parameters
    ----------
    path : Path or str
        The file.

    Raises
    ------
    InputError
        When it is no NPY file of real numbers, or shorter than its header says.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        size = require_file(path).st_size
        super().__init__(str(path), path, npy_header(path))
        expected = self._offset + self.info.nbytes
        if size < expected:
            raise InputError(
                f"{path} is cut: shape {self.info.shape} of {self.info.dtype} needs {expected} "
                f"bytes, the file has {size}.",
                "Copy or download it again.",
            )


def npy_header(path: Path) -> NpyHeader:
    """Return the header of an NPY file, whatever its type is."""
    require_file(path)
    try:
        with open(path, "rb") as file:
            return read_header(file, str(path))
    except OSError as error:
        raise read_error(str(path), error) from error


class NpySink:
    """One NPY file in the making, written from any process of this file system.

    Parameters
    ----------
    path : Path or str
        Final name.
    arrays : mapping
        One array under any key.
    overwrite : bool
        Whether an earlier file may be replaced.
    """

    def __init__(
        self, path: Path | str, arrays: Mapping[str, ArrayInfo], overwrite: bool = False
    ) -> None:
        self.name = str(path)
        self.arrays: Mapping[str, ArrayInfo] = dict(arrays)
        (self._info,) = self.arrays.values()
        header = write_header(self._info, self.name)
        self._draft = Draft.beside(path, overwrite)
        self._writer = RawWriter(self._draft.path, self.name, self._info, header)

    def create(self) -> None:
        """Lay out the draft: the header, and the room for the elements."""
        self._writer.create()

    def write(self, array: str, block: Block, values: np.ndarray) -> None:
        """Write the elements of `block`."""
        self.arrays[array]
        self._writer.write(block, values)

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Do nothing: NPY has no attributes."""

    def publish(self) -> None:
        """Give the file its final name."""
        self._writer.close()
        self._draft.publish()

    def discard(self) -> None:
        """Remove the draft."""
        self._writer.close()
        self._draft.discard()


class RawWriter:
    """Writes blocks of one array to their places in a file.

    Parameters
    ----------
    path : Path
        The file to create.
    name : str
        What messages call it.
    info : ArrayInfo
        The array.
    header : bytes
        What precedes the elements.
    """

    def __init__(self, path: Path, name: str, info: ArrayInfo, header: bytes) -> None:
        self._path = path.absolute()
        self._name = name
        self._info = info
        self._header = header
        self._owner = os.getpid()
        self._file = PerProcess(partial(_open_writer, path), os.close)

    def create(self) -> None:
        """Create the file in its full length."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.open(self._path, flags, 0o666)
            try:
                os.ftruncate(file, len(self._header) + self._info.nbytes)
                _write_all(file, memoryview(self._header), 0)
            finally:
                os.close(file)
        except OSError as error:
            raise output_error(self._name, error) from error

    def write(self, block: Block, values: np.ndarray) -> None:
        """Write the elements of `block`, run by run."""
        info = self._info
        region = _region(info.shape, block, info.fortran_order)
        ordered = values.T if info.fortran_order else values
        data = np.ascontiguousarray(ordered, info.dtype).reshape(region.extents)
        if not data.size:
            return
        axis = region.contiguous_axis()
        try:
            with self._opened() as file:
                for index, element in region.offsets(axis):
                    place: Any = (*index, ...)
                    view = byte_view(data[place])
                    _write_all(file, view, len(self._header) + element * info.dtype.itemsize)
        except OSError as error:
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Close the handle of this process."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._name, error) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _owner=0)


def _region(shape: tuple[int, ...], block: Block, fortran: bool) -> Region:
    # A Fortran-ordered array is the C-ordered array of its transpose.
    step = -1 if fortran else 1
    return Region(shape[::step], block.start[::step], block.stop[::step])


def _write_all(file: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done : done + _AT_ONCE], offset + done)


def _open_reader(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise read_error(str(path), error) from error


def _open_writer(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
