"""Zarr arrays of formats 2 and 3, read by block."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
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
from normcli.arrays.missing import Part, counted, refuse_huge_chunk
from normcli.arrays.retrying import retried
from normcli.arrays.rules import STRICT, InputRules
from normcli.arrays.zarr_calls import call
from normcli.arrays.zarr_codecs import OversizedChunkError, bound
from normcli.arrays.zarr_documents import DOCUMENTS, ArrayDocument, is_array, read_document
from normcli.arrays.zarr_frames import BoundedFrames
from normcli.arrays.zarr_links import require_inside
from normcli.arrays.zarr_listing import list_store
from normcli.arrays.zarr_rust import zarrs_reader
from normcli.arrays.zarr_store import CheckedStore
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.domain.grid import Block
from normcli.errors import InputError, NormcliError, SafetyError

V2_DIMS = "_ARRAY_DIMENSIONS"
ROOT_ATTR = "normcli"
# Filters that neither lose precision nor belong to one range of values or one type.
_KEPT_FILTERS = {"shuffle", "numcodecs.shuffle", "transpose"}
_LOSSY_COMPRESSORS = {"zfpy", "numcodecs.zfpy"}


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
    rules : InputRules
        Whether links may lead out of the store, and what becomes of missing chunks.

    Raises
    ------
    InputError
        When there is no such array, or it does not hold real numbers, or a chunk is empty.
    SafetyError
        When it lies outside of the store, or asks for pickles.
    DataPolicyError
        When chunks are missing that must not be.
    """

    def __init__(self, path: Path | str, inner: str = "", rules: InputRules = STRICT) -> None:
        self._path = Path(path).absolute()
        self._inner = inner
        self.name = f"{path}/{inner}" if inner else str(path)
        array, document = _opened(self._path, inner, self.name, rules)
        require_real(np.dtype(array.dtype), self.name)
        self.info = _describe(array)
        listing = list_store(self._path, self._path / inner, document, self.name, rules)
        refuse_huge_chunk(self.name, self.info, listing.largest)
        self.missing = counted(
            self.name,
            self.info,
            self.info.chunks or (),
            listing.stored,
            self.info.codecs["fill_value"],
            rules,
        )
        self.remarks: tuple[str, ...] = ()
        self._document = document
        self._handle = PerProcess(partial(_Reader, self._path, inner, rules), _forget)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in the array that zarr makes."""
        reader = self._handle.get()
        try:
            values = retried(lambda: np.asarray(reader.read(block)), self.name)
        except NormcliError:
            raise
        except Exception as error:  # codecs raise nearly anything on damaged chunks
            raise self._damaged(reader.array, block, error) from error
        if not values.dtype.isnative:
            return values.astype(values.dtype.newbyteorder("="), order="K")
        if not (values.flags.c_contiguous or values.flags.f_contiguous) or not values.flags.owndata:
            return values.copy(order="K")
        return values

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self.missing.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, last mtime, and a fingerprint of metadata and chunk sizes."""
        folder = self._path / self._inner
        digest = hashlib.sha256()
        size, mtime = 0, 0
        for file in _files(folder):
            try:
                status = file.stat()
                if file.name in DOCUMENTS and file.parent == folder:
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

    def _damaged(self, array: zarr.Array, block: Block, error: Exception) -> NormcliError:
        """Return the error for a block, with the first chunk in it that cannot be read."""
        chunks = self._document.chunks
        spans = [
            range(a // c, -(-b // c))
            for a, b, c in zip(block.start, block.stop, chunks, strict=True)
        ]
        place = f"{self.name} at {block.start}"
        for index in product(*spans):
            part = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))
            try:
                array[part]
            except Exception as own:
                begin = tuple(s.start for s in part)
                place = f"{self.name} at {begin} (chunk {self._document.key(index)})"
                error = own
                break
        if isinstance(error, OversizedChunkError):
            return SafetyError(
                f"{place}, {error}.", "It is damaged, or made to exhaust memory; it was not read."
            )
        return _unreadable(place, error)


class _Reader:
    """An open array, and the faster way into it where there is one."""

    def __init__(self, path: Path, inner: str, rules: InputRules) -> None:
        name = f"{path}/{inner}" if inner else str(path)
        array, document = _opened(path, inner, name, rules)
        self.array = array
        self._frames = BoundedFrames.of(path / inner, document, np.dtype(array.dtype).itemsize)
        self._own = array.async_array
        self._fast = None if self._frames is None else zarrs_reader(array, path)
        stored_plainly = not (array.compressors or array.filters or array.shards)
        self._cells = array.chunks if stored_plainly else None

    def read(self, block: Block) -> Any:
        """Return the elements of a block."""
        fast = self._fast
        if fast is not None and self._takes(block):
            # What zarrs refuses, zarr-python reads, or says what is wrong with it.
            with contextlib.suppress(Exception):
                return call(fast.getitem(block.slices))
        return call(self._own.getitem(block.slices))

    def _takes(self, block: Block) -> bool:
        """Whether zarrs reads a block as zarr-python does, and no less safely.

        Of a plain chunk it reads only the bytes that are asked for, and would not notice that the
        chunk has another size than it must. A compressed one it inflates however far that goes.
        """
        if self._cells is not None and _cuts(block, self._cells):
            return False
        return self._frames is not None and self._frames.cover(block.start, block.stop)


def list_zarr(path: Path, rules: InputRules = STRICT) -> list[ArrayEntry]:
    """Return all arrays of a store, whatever their types are.

    Raises
    ------
    InputError
        When it is no store.
    SafetyError
        When metadata lie outside of the store, or ask for pickles.
    """
    require_folder(path)
    found = []
    marked = False
    for folder, folders, files in os.walk(path):
        marked = marked or any(name in files for name in DOCUMENTS)
        folders.sort()
        here = Path(folder)
        inner = "" if here == path else here.relative_to(path).as_posix()
        try:
            if not is_array(path, here, files, rules):
                continue
            folders.clear()
            info = _describe(_open_array(path, inner, rules))
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


def _open_array(path: Path, inner: str, rules: InputRules = STRICT) -> zarr.Array:
    name = f"{path}/{inner}" if inner else str(path)
    return _opened(path, inner, name, rules)[0]


def _opened(
    path: Path, inner: str, name: str, rules: InputRules
) -> tuple[zarr.Array, ArrayDocument]:
    """Return an array with what was checked of its metadata, which zarr reads after that."""
    require_folder(path)
    folder = path / inner
    require_inside(path, folder, name, rules)
    if not any(os.path.lexists(folder / document) for document in ("zarr.json", ".zarray")):
        raise InputError(f"{path} has no array {inner or 'at its root'}.", _choices(path))
    document = read_document(path, folder, name, rules)
    try:
        store = CheckedStore(path, read_only=True)
        array = zarr.open_array(store, path=inner, mode="r", zarr_format=document.version)
        bound(array)
    except NormcliError:
        raise
    except Exception as error:  # malformed metadata makes zarr raise nearly anything
        raise _unreadable(name, error) from error
    return array, document


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
