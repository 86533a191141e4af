"""HDF5 datasets, read by block."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import file_identity
from normcli.arrays.handles import PerProcess
from normcli.arrays.hdf5_chunk_check import ChunkCheck
from normcli.arrays.hdf5_chunks import BlockReader, decodable, direct_reader
from normcli.arrays.hdf5_describe import (
    readable_info,
    require_filters,
)
from normcli.arrays.hdf5_missing import count_chunks
from normcli.arrays.hdf5_open import (
    _MIB,
    FAILURES,
    open_dataset,
    require_hdf5,
    unreadable,
)
from normcli.arrays.hdf5_probe import require_readable
from normcli.arrays.missing import Part
from normcli.arrays.rules import STRICT, InputRules
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.retrying import reopened


class _Opened(NamedTuple):
    file: h5py.File
    dataset: h5py.Dataset
    direct: BlockReader | None
    check: ChunkCheck


class Hdf5Source:
    """A dataset of an HDF5 file.

    Parameters
    ----------
    path : Path or str
        The file.
    inner : str
        Path of the dataset.
    rules : InputRules
        Whether data may lie in other files, and what becomes of missing chunks.

    Raises
    ------
    InputError
        When there is no such dataset, or it does not hold real numbers.
    SafetyError
        When its data lie outside of the file.
    DataPolicyError
        When chunks are missing that must not be.
    """

    def __init__(self, path: Path | str, inner: str, rules: InputRules = STRICT) -> None:
        self._path = Path(path).absolute()
        self._inner = inner
        self.name = f"{path}/{inner}"
        self.remarks: tuple[str, ...] = ()
        require_readable(require_hdf5(self._path), inner, rules)
        file, dataset = open_dataset(self._path, inner, _MIB, rules)
        try:
            self.info = readable_info(dataset, self.name)
            self.missing = count_chunks(dataset, self.info, self.name, rules)
        except FAILURES as error:
            raise unreadable(self.name, error) from error
        finally:
            file.close()
        opener = partial(_reopened, self._path, inner, self.info, self.name, rules)
        self._handle = PerProcess(opener, _close)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`."""
        native = self.info.dtype.newbyteorder("=")
        if not block.size:
            return np.empty(block.shape, native)
        handle = self._handle.get()
        if handle.direct is not None:
            return handle.direct.read(block, buffer)
        values = block_array(block.shape, native, buffer)
        reopened(lambda: self._read_by_hdf5(handle, block, values))
        return values

    def _read_by_hdf5(self, handle: _Opened, block: Block, values: np.ndarray) -> None:
        try:
            if handle.check.needed:
                handle.check.require(block)
            handle.dataset.read_direct(values, source_sel=block.slices or ())
        except FAILURES as error:
            where = f"{self.name} at {block.start}"
            raise unreadable(where, error) from error

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self.missing.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, mtime and fingerprint of the file."""
        return (file_identity(self._path, self._inner),)

    def close(self) -> None:
        """Close the handle of this process."""
        self._handle.close()


def _reopened(path: Path, inner: str, info: ArrayInfo, name: str, rules: InputRules) -> _Opened:
    return reopened(lambda: _open_reader(path, inner, info, name, rules))


def _open_reader(path: Path, inner: str, info: ArrayInfo, name: str, rules: InputRules) -> _Opened:
    cache_bytes = _cache_bytes(info)
    file, dataset = open_dataset(path, inner, cache_bytes, rules)
    try:
        if not decodable(dataset):
            require_filters(dataset, name)  # which this process may not have registered yet
        # An external link leads to a dataset of another file, whose bytes are in that one.
        holder = dataset.file if rules.allow_external_refs else file
        direct = direct_reader(holder, dataset, info, name, cache_bytes)
        if direct is None:
            require_filters(dataset, name)
        return _Opened(file, dataset, direct, ChunkCheck(dataset, info, name))
    except BaseException as error:
        file.close()
        if not isinstance(error, FAILURES):
            raise
        raise unreadable(name, error) from error


def _close(handle: _Opened) -> None:
    if handle.direct is not None:
        handle.direct.close()
    handle.file.close()


def _cache_bytes(info: ArrayInfo) -> int:
    chunk = prod(info.chunks or (1,)) * info.dtype.itemsize
    return min(max(_MIB, 4 * chunk), 64 * _MIB)
