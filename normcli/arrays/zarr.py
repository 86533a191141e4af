"""Zarr arrays of formats 2 and 3, read by block."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from normcli.arrays.access import ArrayEntry
from normcli.arrays.attributes import plain_attrs
from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.files import read_error, require_folder
from normcli.arrays.handles import PerProcess
from normcli.arrays.zarr_calls import call
from normcli.arrays.zarr_rust import zarrs_reader
from normcli.arrays.zarr_store import CheckedStore
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.domain.grid import Block
from normcli.errors import InputError, NormcliError, SafetyError

V2_DIMS = "_ARRAY_DIMENSIONS"
ROOT_ATTR = "normcli"
DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
# Filters that neither lose precision nor belong to one range of values or one type.
_KEPT_FILTERS = {"shuffle", "numcodecs.shuffle", "transpose"}
_LOSSY_COMPRESSORS = {"zfpy", "numcodecs.zfpy"}
_BLOSC = {"blosc", "numcodecs.blosc"}


def _share_cores() -> None:
    """Keep zarr's own threads from multiplying with those that blocks are worked on with.

    zarr decodes up to 10 chunks of each read at once, on 32 threads or more. With two blocks in
    flight on 2 cores, 4 at once on 2 threads fitted lz4 chunks 1.4 times and applied 2 times as
    fast. Settings that a user made are kept.
    """
    settings = {}
    if zarr.config.get("async.concurrency") == 10:
        settings["async.concurrency"] = 4
    if zarr.config.get("threading.max_workers") is None:
        settings["threading.max_workers"] = len(os.sched_getaffinity(0))
    zarr.config.set(settings)


if hasattr(os, "sched_getaffinity"):
    _share_cores()


class ZarrSource:
    """An array of a Zarr store.

    Parameters
    ----------
    path : Path or str
        The folder of the store.
    inner : str
        Path of the array inside the store; empty for the root.

    Raises
    ------
    InputError
        When there is no such array, or it does not hold real numbers.
    SafetyError
        When it lies outside of the store, or asks for pickles.
    """

    def __init__(self, path: Path | str, inner: str = "") -> None:
        self._path = Path(path).absolute()
        self._inner = inner
        self.name = f"{path}/{inner}" if inner else str(path)
        array = _open_array(self._path, inner)
        require_real(np.dtype(array.dtype), self.name)
        self.info = _describe(array)
        self._handle = PerProcess(partial(_Reader, self._path, inner), _forget)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in the array that zarr makes."""
        reader = self._handle.get()
        try:
            values = np.asarray(call(reader.array(block).getitem(block.slices)))
        except Exception as error:  # codecs raise nearly anything on damaged chunks
            raise _unreadable(f"{self.name} at {block.start}", error) from error
        if not values.dtype.isnative:
            return values.astype(values.dtype.newbyteorder("="), order="K")
        if not (values.flags.c_contiguous or values.flags.f_contiguous) or not values.flags.owndata:
            return values.copy(order="K")
        return values

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, last mtime, and a fingerprint of metadata and chunk sizes."""
        folder = self._path / self._inner
        digest = hashlib.sha256()
        size, mtime = 0, 0
        for file in _files(folder):
            try:
                status = file.stat()
                if file.name in DOCUMENTS:
                    digest.update(file.read_bytes())
            except OSError as error:
                raise read_error(str(file), error) from error
            digest.update(f"{file.relative_to(folder)}:{status.st_size}\n".encode())
            size += status.st_size
            mtime = max(mtime, status.st_mtime_ns)
        return (
            {
                "path": str(self._path.absolute()),
                "array": self._inner,
                "size": size,
                "mtime_ns": mtime,
                "fingerprint": digest.hexdigest()[:32],
            },
        )

    def close(self) -> None:
        """Forget the handle of this process."""
        self._handle.close()


class _Reader:
    """An open array, and the faster way into it where there is one."""

    def __init__(self, path: Path, inner: str) -> None:
        array = _open_array(path, inner)
        self._own = array.async_array
        self._fast = zarrs_reader(array, path)
        stored_plainly = not (array.compressors or array.filters or array.shards)
        self._cells = array.chunks if stored_plainly else None

    def array(self, block: Block) -> zarr.AsyncArray[Any]:
        """Return the array to read a block from.

        Of a plain chunk zarrs reads only the bytes that are asked for, and would not notice that
        the chunk has another size than it must; zarr-python always reads and checks whole chunks.
        """
        if self._fast is None or (self._cells is not None and _cuts(block, self._cells)):
            return self._own
        return self._fast


def list_zarr(path: Path) -> list[ArrayEntry]:
    """Return all arrays of a store, whatever their types are.

    Raises
    ------
    InputError
        When it is no store.
    """
    require_folder(path)
    found = []
    marked = False
    for folder, folders, files in os.walk(path):
        marked = marked or any(name in files for name in DOCUMENTS)
        folders.sort()
        here = Path(folder)
        inner = "" if here == path else here.relative_to(path).as_posix()
        if not _is_array(here, files):
            continue
        folders.clear()
        try:
            info = _describe(_open_array(path, inner))
        except InputError:
            if not inner:
                raise
            continue  # an array that this zarr does not know must not hide the others
        found.append(ArrayEntry(inner, info, _stored_bytes(here)))
    if not marked:
        raise InputError(f"{path} is a folder without Zarr metadata.")
    return found


def has_mark(path: Path) -> bool:
    """Whether normcli wrote the store as a container of several arrays."""
    try:
        group = zarr.open_group(LocalStore(path, read_only=True), mode="r", use_consolidated=False)
        return ROOT_ATTR in group.attrs
    except Exception:  # whatever else is there, normcli did not write it
        return False


def _open_array(path: Path, inner: str) -> zarr.Array:
    require_folder(path)
    folder = path / inner
    name = f"{path}/{inner}" if inner else str(path)
    if not folder.resolve().is_relative_to(path.resolve()):
        raise SafetyError(f"{name} is a link out of the store.", "Name the target itself.")
    if not (folder / "zarr.json").is_file() and not (folder / ".zarray").is_file():
        raise InputError(f"{path} has no array {inner or 'at its root'}.", _choices(path))
    try:
        store = CheckedStore(path, read_only=True)
        array = zarr.open_array(store, path=inner, mode="r")
        _refuse_pickles(array, name)
        store.blosc = not array.shards and _codec_name(array.compressors) in _BLOSC
    except NormcliError:
        raise
    except Exception as error:  # malformed metadata makes zarr raise nearly anything
        raise _unreadable(name, error) from error
    return array


def _refuse_pickles(array: zarr.Array, name: str) -> None:
    for codec in (*array.filters, *array.compressors):
        label = getattr(codec, "codec_id", None) or type(codec).__name__
        if "pickle" in label.lower():
            raise SafetyError(f"{name} contains pickles, which normcli never loads.")


def _choices(path: Path) -> str | None:
    try:
        names = [entry.path for entry in list_zarr(path) if entry.path]
    except InputError:
        return None
    return f"It holds {', '.join(names[:20])}." if names else "It holds no array."


def _describe(array: zarr.Array) -> ArrayInfo:
    attrs = plain_attrs(array.attrs.asdict())
    names = attrs.pop(V2_DIMS, None)
    if array.metadata.zarr_format == 3:
        names = array.metadata.dimension_names
    dims = None
    if isinstance(names, (list, tuple)) and len(names) == array.ndim and any(names):
        dims = tuple(str(name or "") for name in names)
    return ArrayInfo(
        shape=tuple(int(n) for n in array.shape),
        dtype=_stored_dtype(array),
        chunks=tuple(array.chunks) or None,
        shards=tuple(array.shards) if array.shards else None,
        dims=dims,
        attrs=attrs,
        storage="zarr",
        codecs=_codecs(array),
    )


def _stored_dtype(array: zarr.Array) -> np.dtype:
    dtype = np.dtype(array.dtype)
    if array.metadata.zarr_format == 3 and dtype.kind in "iuf":
        # Format 3 keeps the byte order in a codec, and zarr tells the native type.
        endian = getattr(array.serializer, "endian", None)
        if getattr(endian, "value", endian) == "big":
            return dtype.newbyteorder(">")
    return dtype


def _codecs(array: zarr.Array) -> dict[str, Any]:
    """Return plain values from which a sink makes the same encoding."""
    metadata: Any = array.metadata  # of one of two classes, as the format is
    compressors: Any = array.compressors
    array_filters: Any = array.filters
    version = metadata.zarr_format
    codecs: dict[str, Any] = {"zarr_format": version}
    if version == 2:
        configs = [codec.get_config() for codec in compressors]
        filters = [codec.get_config() for codec in array_filters]
        label = "id"
        codecs["order"] = metadata.order
        codecs["separator"] = metadata.dimension_separator
    else:
        configs = [codec.to_dict() for codec in compressors]
        filters = [codec.to_dict() for codec in array_filters]
        label = "name"
        codecs["chunk_key_encoding"] = metadata.chunk_key_encoding.to_dict()
        if array.shards:
            # A string since zarr 3.2, an enumeration before.
            location = metadata.codecs[0].index_location
            codecs["index_location"] = getattr(location, "value", location)
    codecs["filters"] = [config for config in filters if config[label] in _KEPT_FILTERS]
    lossy = any(config[label] in _LOSSY_COMPRESSORS for config in configs)
    codecs["compressors"] = "auto" if lossy else configs
    fill = array.fill_value
    codecs["fill_value"] = fill.item() if isinstance(fill, np.generic) else fill
    return codecs


def _cuts(block: Block, cells: tuple[int, ...]) -> bool:
    edges = (*zip(block.start, cells, strict=True), *zip(block.stop, cells, strict=True))
    return any(edge % cell for edge, cell in edges)


def _codec_name(compressors: Any) -> str:
    """Return the name of the codec whose output is stored."""
    if not compressors:
        return ""
    last = compressors[-1]
    return str(last.get_config()["id"] if hasattr(last, "get_config") else last.to_dict()["name"])


def _is_array(folder: Path, files: list[str]) -> bool:
    if ".zarray" in files:
        return True
    if "zarr.json" not in files:
        return False
    try:
        # Large metadata is possible, but the type of the node is all that counts here.
        return '"array"' in (folder / "zarr.json").read_text("utf-8", "replace")
    except OSError as error:
        raise read_error(str(folder / "zarr.json"), error) from error


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield Path(parent, name)


def _stored_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in _files(folder) if file.name not in DOCUMENTS)


def _forget(reader: _Reader) -> None:
    """Do nothing: a local store keeps no file open."""


def _unreadable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    return InputError(f"{name} could not be read as Zarr: {reason}.")
