"""Zarr stores in the making, written from any process of this file system."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, MemoryStore, StorePath

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum, part_checksum
from normcli.arrays.drafts import DraftedSink
from normcli.arrays.handles import PerProcess
from normcli.arrays.raw_writer import write_checked
from normcli.arrays.runs import byte_view
from normcli.arrays.zarr import ROOT_ATTR, V2_DIMS
from normcli.arrays.zarr_documents import DOCUMENTS
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.grid import Block, Grid
from normcli.errors import OutputError, UsageError
from normcli.publishing import sync_files

# A chunk of zeros that is not stored could not be told from a lost one.
_CONFIG: Any = {"write_empty_chunks": True}
_CHECKSUM = {"name": "crc32c"}
# zarr's own default, which detects no damage.
_DEFAULT_COMPRESSORS = [{"name": "zstd", "configuration": {"level": 0, "checksum": False}}]
_PARTIAL = ".partial"


class ZarrSink(DraftedSink):
    """One array at the root of a Zarr store, or several arrays in it.

    Chunks of format 3 end with their CRC-32C, so that every reader notices damage.

    Parameters
    ----------
    path : Path or str
        Final name of the folder.
    arrays : mapping of str to ArrayInfo
        The arrays, by the names that `write` is given.
    paths : mapping of str to str
        Path of each inside the store; empty for the root.
    overwrite : bool
        Whether an earlier store may be replaced.
    """

    container = "zarr"

    def __init__(
        self,
        path: Path | str,
        arrays: Mapping[str, ArrayInfo],
        paths: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        super().__init__(path, arrays, overwrite, paths)
        for info in self.arrays.values():
            if is_bfloat16(info.dtype):
                raise UsageError(
                    f"{path} would hold bfloat16, which zarr {zarr.__version__} cannot store.",
                    "Add --dtype float32.",
                )
        # Files that are known to be durable, in the process that syncs and seals.
        self._durable: set[str] = set()
        self._writers = {
            key: PerProcess(partial(_Writer, self._draft.path, inner), _forget)
            for key, inner in self._paths.items()
        }

    def create(self) -> None:
        """Lay out groups and arrays."""
        self._durable.clear()
        self._draft.make_room()
        try:
            self._draft.path.mkdir()
            store = LocalStore(self._draft.path)
            for key, info in self.arrays.items():
                _create_array(store, self._paths[key], info)
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Take up the store, where its arrays are these and the file of every part is there."""
        try:
            if not self._is_laid_out():
                return False
            self._remove_partial()
            known = list(parts)
            # What a journal knows was durable before it was written down.
            self._durable = {part.key for part in known}
            return all(_is_stored(self._draft.path, part) for part in known)
        except Exception:  # zarr raises nearly anything; the store is made afresh
            return False

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block`, which holds whole chunks (or shards) of one array."""
        if not values.size:
            return ()
        try:
            parts = self._writers[array].get().write(block, values)
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error
        if not parts:
            raise OutputError(
                f"{self.name} is written past its store by another codec pipeline of zarr.",
                "Unset ZARR_CODEC_PIPELINE__PATH.",
            )
        return tuple(parts)

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Make the files of these parts durable, and the folders that name them."""
        keys = [part.key for part in parts]
        self._sync(keys)
        self._durable.update(keys)

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes under the key ``normcli`` of the root."""
        try:
            root = zarr.open(LocalStore(self._draft.path), mode="r+")
            known = root.attrs.get(ROOT_ATTR, {})
            root.attrs[ROOT_ATTR] = {**known, **attrs}  # type: ignore[dict-item]
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def seal(self) -> tuple[StoredPart, ...]:
        """See that every chunk is there, make the store durable, and return its metadata."""
        self.close()
        root = self._draft.path
        try:
            self._remove_partial()
            if not self._is_laid_out():
                raise self._torn("its metadata have changed")
            for key, info in self.arrays.items():
                self._require_chunks(root / self._paths[key], info)
            documents = [_document(root, file) for file in _files(root) if file.name in DOCUMENTS]
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error
        keys = [file.relative_to(root).as_posix() for file in _files(root)]
        # 128 chunks that were durable already took 70 ms to sync again.
        self._sync([key for key in keys if key not in self._durable])
        return tuple(documents)

    def close(self) -> None:
        """Forget the handles of this process."""
        for writer in self._writers.values():
            writer.close()

    def _sync(self, keys: Iterable[str]) -> None:
        """Make files durable, and the folders that name them."""
        root = self._draft.path
        places = [Path(key) for key in keys]
        folders = {parent for place in places for parent in place.parents}
        try:
            sync_files(root / place for place in places)
            sync_files(root / folder for folder in folders)
        except OSError as error:
            raise self._failed(error) from error

    def _is_laid_out(self) -> bool:
        """Whether the draft holds these arrays, whatever their attributes are."""
        wanted = MemoryStore()
        for key, info in self.arrays.items():
            inner = self._paths[key]
            expected = _settings(_create_array(wanted, inner, info))
            store = LocalStore(self._draft.path, read_only=True)
            if _settings(zarr.open_array(store, path=inner, mode="r")) != expected:
                return False
        return True

    def _require_chunks(self, folder: Path, info: ArrayInfo) -> None:
        wanted = len(Grid(info.shape, tuple(max(1, n) for n in info.write_unit or info.shape)))
        found = sum(file.name not in DOCUMENTS for file in _files(folder))
        if found != wanted:
            raise self._torn(f"{folder.name} has {found} of {wanted} chunks")

    def _remove_partial(self) -> None:
        # zarr leaves these where it is killed between writing a chunk and renaming it.
        for file in _files(self._draft.path):
            if file.name.endswith(_PARTIAL):
                file.unlink()


class _RecordingStore(LocalStore):
    """A store that keeps size and checksum of what one write puts into it.

    Parameters
    ----------
    root : Path
        Its folder.
    append : bool
        Whether to end each part with its CRC-32C, as the codec of that name does.
    """

    def __init__(self, root: Path, append: bool) -> None:
        super().__init__(root)
        self.parts: list[StoredPart] = []
        self._append = append

    async def set(self, key: str, value: Buffer) -> None:
        """Store a part."""
        data = byte_view(value.as_numpy_array())
        self.parts.append(await asyncio.to_thread(self._put, key, data))

    def _put(self, key: str, data: memoryview) -> StoredPart:
        path = self.root / key
        checksum = PartChecksum()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                write_checked(file, data, 0, checksum)
                if self._append:
                    tail = checksum.whole.to_bytes(4, "little")
                    write_checked(file, memoryview(tail), len(data), checksum)
            finally:
                os.close(file)
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return StoredPart(key, checksum.nbytes, checksum.value)


class _Writer:
    """An array of the draft, written without the codec that its store does the work of.

    zarr's own crc32c codec copies each chunk on the one thread of its event loop.
    """

    def __init__(self, root: Path, inner: str) -> None:
        array = zarr.open_array(LocalStore(root), path=inner, mode="r+")
        self._root = root
        self._path = array.async_array.store_path.path
        self._metadata: Any = array.metadata
        self._append = _ends_with_checksum(array)
        if self._append:
            settings: dict[str, Any] = self._metadata.to_dict()
            settings["codecs"] = settings["codecs"][:-1]
            self._metadata = type(self._metadata).from_dict(settings)

    def write(self, block: Block, values: np.ndarray) -> list[StoredPart]:
        """Write a block; each write has a store of its own, and so its own parts."""
        store = _RecordingStore(self._root, self._append)
        place = StorePath(store, self._path)
        array = zarr.Array(zarr.AsyncArray(self._metadata, place, _CONFIG))
        array[block.slices] = values
        return store.parts


def _ends_with_checksum(array: zarr.Array) -> bool:
    if array.metadata.zarr_format == 2 or array.shards or not array.compressors:
        return False
    return isinstance(array.compressors[-1], Crc32cCodec)


def _settings(array: zarr.Array) -> dict[str, Any]:
    settings: Mapping[str, Any] = array.metadata.to_dict()
    return {name: value for name, value in settings.items() if name != "attributes"}


def _is_stored(root: Path, part: StoredPart) -> bool:
    file = root / part.key
    inside = ".." not in file.relative_to(root).parts
    return inside and not file.is_symlink() and file.stat().st_size == part.nbytes


def _document(root: Path, file: Path) -> StoredPart:
    data = file.read_bytes()
    return StoredPart(file.relative_to(root).as_posix(), len(data), part_checksum(data))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _create_array(store: LocalStore | MemoryStore, inner: str, info: ArrayInfo) -> zarr.Array:
    codecs = info.codecs
    version = codecs.get("zarr_format", 3)
    chunks = tuple(max(1, n) for n in info.chunks or info.shape)
    attrs = {name: value for name, value in info.attrs.items() if name != V2_DIMS}
    options: dict[str, Any] = {}
    if "fill_value" in codecs:
        options["fill_value"] = codecs["fill_value"]
    if version == 2:
        if info.dims:
            attrs[V2_DIMS] = list(info.dims)
        options.update(_options_2(codecs))
    else:
        options.update(_options_3(codecs, info))
    return zarr.create_array(
        store,
        name=inner or None,
        shape=info.shape,
        dtype=info.dtype,
        chunks=chunks,
        attributes=attrs,
        zarr_format=version,
        config=_CONFIG,
        **options,
    )


def _options_2(codecs: Mapping[str, Any]) -> dict[str, Any]:
    from numcodecs import get_codec

    compressors = codecs.get("compressors", "auto")
    options: dict[str, Any] = {
        "order": codecs.get("order", "C"),
        "chunk_key_encoding": {"name": "v2", "separator": codecs.get("separator", ".")},
        "filters": [get_codec(config) for config in codecs.get("filters", ())] or None,
    }
    if compressors != "auto":
        options["compressors"] = get_codec(compressors[0]) if compressors else None
    return options


def _options_3(codecs: Mapping[str, Any], info: ArrayInfo) -> dict[str, Any]:
    options: dict[str, Any] = {
        "filters": list(codecs.get("filters", ())) or None,
        "compressors": _with_checksum(codecs.get("compressors", "auto")),
    }
    if info.dims:
        options["dimension_names"] = [name or None for name in info.dims]
    if info.shards:
        location = codecs.get("index_location", "end")
        options["shards"] = {"shape": info.shards, "index_location": location}
    if "chunk_key_encoding" in codecs:
        options["chunk_key_encoding"] = codecs["chunk_key_encoding"]
    if not info.dtype.isnative:
        # Format 3 keeps the byte order in this codec.
        options["serializer"] = {"name": "bytes", "configuration": {"endian": "big"}}
    return options


def _with_checksum(compressors: Any) -> list[Mapping[str, Any]]:
    """Return the compressors of a format 3 array, with a checksum of what they leave.

    In a sharded array these are the codecs of the inner chunks; the index has a checksum anyway.
    """
    if compressors == "auto":
        compressors = _DEFAULT_COMPRESSORS
    known: list[Mapping[str, Any]] = [dict(codec) for codec in compressors]
    return known if _CHECKSUM in known else [*known, _CHECKSUM]


def _forget(writer: _Writer) -> None:
    """Do nothing: a local store keeps no file open."""
