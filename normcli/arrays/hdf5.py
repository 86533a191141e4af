"""HDF5 datasets, read by block."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from normcli.arrays.access import ArrayEntry
from normcli.arrays.attributes import plain_attrs
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import file_identity, first_bytes, require_file
from normcli.arrays.handles import PerProcess
from normcli.arrays.hdf5_chunk_check import ChunkCheck
from normcli.arrays.hdf5_chunks import BlockReader, decodable, direct_reader
from normcli.arrays.hdf5_guard import safe_dataset
from normcli.arrays.hdf5_missing import count_chunks
from normcli.arrays.hdf5_places import element_spans
from normcli.arrays.hdf5_probe import require_listable, require_readable
from normcli.arrays.missing import Part
from normcli.arrays.rules import STRICT, InputRules
from normcli.arrays.sniffing import wrong_content
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.domain.grid import Block
from normcli.errors import InputError, NormcliError

ROOT_ATTR = "normcli"
_MIB = 1 << 20
_HIDDEN_ATTRS = {"DIMENSION_LIST", "DIMENSION_LABELS", "CLASS", "REFERENCE_LIST", "NAME"}
# What h5py raises on damaged files; numbers beyond 64 bits signed are the last.
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError)
_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Else a file that asks for an unknown filter makes HDF5 load every library in these folders.
while h5py.h5pl.size():
    h5py.h5pl.remove(0)


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
        file, dataset = _open_dataset(self._path, inner, _MIB, rules)
        try:
            self.info = _require_readable(dataset, self.name)
            self.missing = count_chunks(dataset, self.info, self.name, rules)
        except _FAILURES as error:
            raise _unreadable(self.name, error) from error
        finally:
            file.close()
        opener = partial(_open_reader, self._path, inner, self.info, self.name, rules)
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
        try:
            if handle.check.needed:
                handle.check.require(block)
            handle.dataset.read_direct(values, source_sel=block.slices or ())
        except _FAILURES as error:
            where = f"{self.name} at {block.start}"
            raise _unreadable(where, error) from error
        return values

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self.missing.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, mtime and fingerprint of the file."""
        return (file_identity(self._path, self._inner),)

    def close(self) -> None:
        """Close the handle of this process."""
        self._handle.close()


def list_datasets(path: Path) -> list[ArrayEntry]:
    """Return all datasets of a file, without following a link."""
    entries: list[ArrayEntry] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            try:
                info = _describe(node)
            except (TypeError, ValueError):  # a type that numpy has no name for
                return
            entries.append(ArrayEntry(name, info, node.id.get_storage_size()))

    require_listable(require_hdf5(path))
    file = _open_file(path)
    try:
        file.visititems(visit)
    except _FAILURES as error:
        raise _unreadable(str(path), error) from error
    finally:
        file.close()
    return entries


def chunk_spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and bytes of every stored chunk of a file, by its key.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    spans = {}
    file = _open_file(path)
    try:
        for entry in list_datasets(path):
            dataset = safe_dataset(file, entry.path, str(path))
            if dataset.chunks is not None:
                for key, offset, nbytes in element_spans(dataset):
                    spans[key] = (offset, nbytes)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise _unreadable(str(path), error) from error
    finally:
        file.close()
    return spans


def has_mark(path: Path) -> bool:
    """Whether normcli wrote the file as a container of several arrays."""
    require_listable(require_hdf5(path))
    file = _open_file(path)
    try:
        return ROOT_ATTR in file.attrs
    finally:
        file.close()


def require_hdf5(path: Path) -> Path:
    """Return `path` if it is a regular file that may be HDF5, before a library sees it.

    Raises
    ------
    InputError
        When it is missing, no regular file, or begins like a file of another kind.
    """
    size = require_file(path).st_size
    head = first_bytes(path)
    if head.startswith(_SIGNATURE):
        return path
    # Behind a user block, the signature is at 512 bytes or a power of two times that.
    place = 512
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return path
            place *= 2
    raise wrong_content(str(path), "an HDF5 file", head)


def _open_file(path: Path, cache_bytes: int = _MIB) -> h5py.File:
    require_file(path)
    try:
        return h5py.File(path, "r", rdcc_nbytes=cache_bytes)
    except _FAILURES as error:
        raise _unreadable(str(path), error) from error


def _open_dataset(
    path: Path, inner: str, cache_bytes: int, rules: InputRules
) -> tuple[h5py.File, h5py.Dataset]:
    file = _open_file(path, cache_bytes)
    try:
        return file, safe_dataset(file, inner, str(path), rules=rules)
    except BaseException as error:
        file.close()
        if isinstance(error, NormcliError) or not isinstance(error, Exception):
            raise
        raise _unreadable(f"{path}/{inner}", error) from error


def _open_reader(path: Path, inner: str, info: ArrayInfo, name: str, rules: InputRules) -> _Opened:
    cache_bytes = _cache_bytes(info)
    file, dataset = _open_dataset(path, inner, cache_bytes, rules)
    try:
        if not decodable(dataset):
            _require_filters(dataset, name)  # which this process may not have registered yet
        # An external link leads to a dataset of another file, whose bytes are in that one.
        holder = dataset.file if rules.allow_external_refs else file
        direct = direct_reader(holder, dataset, info, name, cache_bytes)
        if direct is None:
            _require_filters(dataset, name)
        return _Opened(file, dataset, direct, ChunkCheck(dataset, info, name))
    except BaseException as error:
        file.close()
        if not isinstance(error, _FAILURES):
            raise
        raise _unreadable(name, error) from error


def _close(handle: _Opened) -> None:
    if handle.direct is not None:
        handle.direct.close()
    handle.file.close()


def _require_readable(dataset: h5py.Dataset, name: str) -> ArrayInfo:
    if dataset.shape is None:
        raise InputError(f"{name} has no elements and no shape.")
    dtype = dataset.dtype
    if h5py.check_enum_dtype(dtype) is not None:
        raise InputError(
            f"{name} holds an enumeration, whose codes are names, not numbers.",
            "Store the codes as an integer dataset if they are meant as numbers.",
        )
    if h5py.check_string_dtype(dtype) is not None:
        raise InputError(f"{name} holds strings, not real numbers.")
    if h5py.check_vlen_dtype(dtype) is not None:
        raise InputError(
            f"{name} holds rows of varying length (vlen of {h5py.check_vlen_dtype(dtype)}), not "
            "real numbers in a grid.",
            "Pad the rows to one length, and store them as a plain dataset.",
        )
    if h5py.check_ref_dtype(dtype) is not None:
        raise InputError(f"{name} holds references to other objects, not real numbers.")
    require_real(dtype, name)
    if not decodable(dataset):
        _require_filters(dataset, name)
    return _describe(dataset)


def _require_filters(dataset: h5py.Dataset, name: str) -> None:
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers the filters it brings along
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{name} is compressed by the HDF5 filter {code} "
                f"({label.decode(errors='replace') or 'without a name'}), which is not installed.",
                "pip install 'normcli[hdf5]', or rewrite the file: h5repack -f GZIP=4 IN OUT",
            )


def _describe(dataset: h5py.Dataset) -> ArrayInfo:
    dtype = dataset.dtype
    if dtype.kind in "biuf":
        dtype = np.dtype(dtype.str)  # without the metadata that h5py attaches
    return ArrayInfo(
        shape=tuple(int(n) for n in dataset.shape),
        dtype=dtype,
        chunks=dataset.chunks,
        dims=_dims(dataset),
        attrs=_attrs(dataset),
        storage="hdf5",
        codecs=_codecs(dataset),
    )


def _dims(dataset: h5py.Dataset) -> tuple[str, ...] | None:
    own = dataset.name.rsplit("/", 1)[-1] if dataset.name else ""
    if dataset.ndim == 1 and h5py.h5ds.is_scale(dataset.id):
        return (own,)
    names = []
    for dim in dataset.dims:
        name = dim.label
        if not name and len(dim):
            name = (dim[0].name or "").rsplit("/", 1)[-1]
        names.append(name)
    return tuple(names) if any(names) else None


def _attrs(dataset: h5py.Dataset) -> dict[str, Any]:
    found = {}
    for name in dataset.attrs:
        if name in _HIDDEN_ATTRS or name.startswith("_Netcdf4"):
            continue
        try:
            found[name] = dataset.attrs[name]
        except (OSError, TypeError, ValueError, RuntimeError, KeyError):
            continue  # of a type that h5py has no name for
    return plain_attrs(found)


def _codecs(dataset: h5py.Dataset) -> dict[str, Any]:
    if dataset.chunks is None:
        return {}
    plist = dataset.id.get_create_plist()
    known = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SCALEOFFSET}
    others = {plist.get_filter(n)[0] for n in range(plist.get_nfilters())} - known
    codecs: dict[str, Any] = {
        "compression": dataset.compression,
        "compression_opts": dataset.compression_opts,
        "shuffle": bool(dataset.shuffle),
        "fletcher32": bool(dataset.fletcher32),
    }
    if dataset.compression not in ("gzip", "lzf"):
        # Filters that cannot be written here are replaced by the one every reader has.
        compressed = bool(others)
        codecs["compression"] = "gzip" if compressed else None
        codecs["compression_opts"] = 4 if compressed else None
        codecs["shuffle"] = compressed or codecs["shuffle"]
    return codecs


def _cache_bytes(info: ArrayInfo) -> int:
    chunk = prod(info.chunks or (1,)) * info.dtype.itemsize
    return min(max(_MIB, 4 * chunk), 64 * _MIB)


def _unreadable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    hint = None
    if "truncated" in reason or "eof" in reason:
        hint = "The file is cut: copy or download it again."
    elif "lock" in reason.lower():
        hint = "Another program is writing to it."
    return InputError(f"{name} could not be read as HDF5: {reason[:300].rstrip('.')}.", hint)
