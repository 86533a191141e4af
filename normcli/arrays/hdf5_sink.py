"""HDF5 files in the making, written by one process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from normcli.arrays.hdf5 import ROOT_ATTR
from normcli.arrays.hdf5_encode import ChunkEncoder
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.grid import Block
from normcli.errors import NormcliError, OutputError, UsageError
from normcli.publishing import Draft, output_error

# Readable by every HDF5 since 2016, with checksums in its metadata, and a file whose writer died is
# refused instead of read as zeros.
_VERSION = ("v110", "v110")
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError)


class Hdf5Sink:
    """One or several datasets of one HDF5 file.

    Parameters
    ----------
    path : Path or str
        Final name.
    arrays : mapping of str to ArrayInfo
        The arrays, by the names that `write` is given.
    paths : mapping of str to str
        Path of each inside the file.
    overwrite : bool
        Whether an earlier file may be replaced.
    """

    def __init__(
        self,
        path: Path | str,
        arrays: Mapping[str, ArrayInfo],
        paths: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        self.name = str(path)
        self.arrays: Mapping[str, ArrayInfo] = dict(arrays)
        self._paths = dict(paths)
        for info in self.arrays.values():
            if is_bfloat16(info.dtype):
                raise UsageError(
                    f"{path} would hold bfloat16, which HDF5 readers do not know.",
                    "Add --dtype float32.",
                )
        self._draft = Draft.beside(path, overwrite)
        self._lock = threading.Lock()
        self._file: h5py.File | None = None
        self._encoders: dict[str, ChunkEncoder] = {}

    def create(self) -> None:
        """Lay out the datasets."""
        try:
            self._file = h5py.File(self._draft.path, "x", libver=_VERSION)
            for key, info in self.arrays.items():
                dataset = _create_dataset(self._file, self._paths[key], info)
                encoder = ChunkEncoder.of(dataset)
                if encoder is not None:
                    self._encoders[key] = encoder
        except _FAILURES as error:
            raise self._failed(error) from error

    def write(self, array: str, block: Block, values: np.ndarray) -> None:
        """Write the elements of `block` of one array.

        Whole chunks are filtered in the calling thread, and only their bytes wait for the lock.
        """
        encoder = self._encoders.get(array)
        try:
            if not values.size:
                return
            if encoder is None or not encoder.takes(block, values):
                with self._lock:
                    self._opened()[self._paths[array]][block.slices] = values
                return
            for place, data, mask in encoder.encode(block, values):
                with self._lock:
                    dataset = self._opened()[self._paths[array]]
                    dataset.id.write_direct_chunk(place, data, mask)
        except _FAILURES as error:
            raise self._failed(error) from error

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes, kept as JSON text in the root attribute ``normcli``."""
        with self._lock:
            try:
                root = self._opened().attrs
                known = json.loads(root[ROOT_ATTR]) if ROOT_ATTR in root else {}
                root[ROOT_ATTR] = json.dumps({**known, **attrs}, ensure_ascii=False)
            except _FAILURES as error:
                raise self._failed(error) from error

    def publish(self) -> None:
        """Close the file, open it again to see that it is whole, and give it its final name."""
        with self._lock:
            try:
                self._opened().close()
                self._file = None
                # A full disk may show itself only in what HDF5 wrote.
                with h5py.File(self._draft.path, "r") as file:
                    for key, info in self.arrays.items():
                        if file[self._paths[key]].shape != info.shape:
                            raise OutputError(f"{self.name} is not what was written.")
            except _FAILURES as error:
                raise self._failed(error) from error
        self._draft.publish()

    def discard(self) -> None:
        """Close and remove the draft."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(*_FAILURES):
                    self._file.close()
                self._file = None
        self._draft.discard()

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            f"{self.name}: HDF5 can be written by one process only.",
            "Write .zarr on a cluster, or leave out --scheduler.",
        )

    def _opened(self) -> h5py.File:
        if self._file is None:
            raise RuntimeError(f"{self.name} is not open: create it first")
        return self._file

    def _failed(self, error: Exception) -> NormcliError:
        # h5py tells the system's error inside of its message only.
        code = re.search(r"errno = (\d+)", str(error))
        if code:
            number = int(code.group(1))
            return output_error(self.name, OSError(number, os.strerror(number)))
        if isinstance(error, OSError):
            return output_error(self.name, error)
        return OutputError(f"{self.name} could not be written: {error}.")


def _create_dataset(file: h5py.File, path: str, info: ArrayInfo) -> h5py.Dataset:
    options: dict[str, Any] = {}
    if info.chunks and info.ndim and all(info.shape):
        options = {name: value for name, value in info.codecs.items() if value is not None}
        # HDF5 refuses chunks larger than the extent of a fixed axis.
        options["chunks"] = tuple(map(min, info.chunks, info.shape))
    dataset = file.create_dataset(path, info.shape, info.dtype, **options)
    for dim, label in zip(dataset.dims, info.dims or (), strict=False):
        if label:
            dim.label = label
    for name, value in info.attrs.items():
        _set_attr(dataset, name, value)
    return dataset


def _set_attr(dataset: h5py.Dataset, name: str, value: Any) -> None:
    if value is None:
        return
    try:
        dataset.attrs[name] = value
    except (TypeError, ValueError):  # nested or mixed values, which HDF5 has no type for
        dataset.attrs[name] = json.dumps(value)
