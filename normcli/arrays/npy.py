"""NPY files read by `pread`, never mapped.

A mapped file that another process truncates kills the reader by SIGBUS; a short `pread` is an error
that can be told.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import WholeSource
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import file_identity, read_error, require_file
from normcli.arrays.handles import PerProcess
from normcli.arrays.npy_format import NpyHeader, read_header, require_numbers, too_short
from normcli.arrays.runs import Region, byte_view, stored_region
from normcli.domain.grid import Block
from normcli.errors import InputError
from normcli.retrying import read_at

_AT_ONCE = 1 << 30


class RawSource(WholeSource):
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
        require_numbers(header, name)
        self.name = name
        self.info = header.info
        self._path = path.absolute()
        self._inner = inner
        self._offset = base + header.length
        self._file = PerProcess(partial(_open_reader, self._path), os.close)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in Fortran order where the file has it."""
        stored = self.info.dtype
        region = stored_region(self.info.shape, block, self.info.fortran_order)
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
        try:
            done = read_at(file, view, offset, self.name)
        except OSError as error:
            raise read_error(f"{self.name} at byte {offset}", error) from error
        if done < len(view):
            raise InputError(
                f"{self.name} ended at byte {offset + done} while it was read; "
                f"it was {self._offset + self.info.nbytes} bytes long.",
                "Do not change an input while normcli reads it.",
            )


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
        header = npy_header(path)
        super().__init__(str(path), path, header)
        expected = self._offset + self.info.nbytes
        if size < expected:
            raise too_short(str(path), header, expected, size)
        if size > expected:
            self.remarks = (f"{path} has {size - expected} bytes after its array.",)


def npy_header(path: Path) -> NpyHeader:
    """Return the header of an NPY file, whatever its type is."""
    require_file(path)
    try:
        with open(path, "rb") as file:
            return read_header(file, str(path))
    except OSError as error:
        raise read_error(str(path), error) from error


def _open_reader(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise read_error(str(path), error) from error
