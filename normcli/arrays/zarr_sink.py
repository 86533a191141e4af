"""Zarr stores in the making, written from any process of this file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, MemoryStore

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import part_checksum
from normcli.arrays.drafts import Contents, DraftedSink
from normcli.arrays.handles import PerProcess
from normcli.arrays.zarr_documents import DOCUMENTS
from normcli.arrays.zarr_files import files_below
from normcli.arrays.zarr_layout import (
    create_array,
    settings_of,
)
from normcli.arrays.zarr_open import ROOT_ATTR
from normcli.arrays.zarr_writer import PARTIAL, BlockWriter
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.grid import Block, Grid
from normcli.errors import OutputError, UsageError
from normcli.publishing import sync_files
from normcli.zarr_loop import hush_zarr


class ZarrSink(DraftedSink):
    """One array at the root of a Zarr store, or several arrays in it.

    Chunks of format 3 end with their CRC-32C, so that every reader notices damage.

    Parameters
    ----------
    contents : Contents
        The container, and what it shall hold.
    """

    container = "zarr"

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        for info in self.arrays.values():
            if is_bfloat16(info.dtype):
                raise UsageError(
                    f"{self.name} would hold bfloat16, which zarr {zarr.__version__} cannot store.",
                    "Add --dtype float32.",
                )
        # Files that are known to be durable, in the process that syncs and seals.
        self._durable: set[str] = set()
        self._writers = {
            key: PerProcess(partial(BlockWriter, self._draft.path, inner), _forget)
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
                create_array(store, self._paths[key], info)
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
            hush_zarr()
            root = zarr.open(LocalStore(self._draft.path), mode="r+")
            known = root.attrs.get(ROOT_ATTR, {})
            root.attrs[ROOT_ATTR] = {**known, **attrs}  # type: ignore[dict-item]
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def seal(self) -> tuple[StoredPart, ...]:
        """See that every chunk is there, make the store durable, and return its metadata."""
        self.close()
        root = self._draft.path
        documents: list[StoredPart] = []
        loose: list[str] = []
        chunks = dict.fromkeys(self.arrays, 0)
        try:
            if not self._is_laid_out():
                raise self._torn("its metadata have changed")
            # Once for all, since a million chunks take a while to list.
            for key, entry in files_below(root):
                if entry.name.endswith(PARTIAL):
                    os.unlink(entry.path)
                    continue
                if entry.name in DOCUMENTS:
                    documents.append(_document(key, entry.path))
                else:
                    self._count(key, chunks)
                # 128 chunks that were durable already took 70 ms to sync again.
                if key not in self._durable:
                    loose.append(key)
            self._require_chunks(chunks)
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error
        self._sync(loose)
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
        hush_zarr()
        for key, info in self.arrays.items():
            inner = self._paths[key]
            expected = settings_of(create_array(wanted, inner, info))
            store = LocalStore(self._draft.path, read_only=True)
            if settings_of(zarr.open_array(store, path=inner, mode="r")) != expected:
                return False
        return True

    def _count(self, key: str, chunks: dict[str, int]) -> None:
        """Count a file of chunks for the arrays in whose folders it is."""
        for name, inner in self._paths.items():
            chunks[name] += not inner or key.startswith(f"{inner}/")

    def _require_chunks(self, found: Mapping[str, int]) -> None:
        for name, info in self.arrays.items():
            wanted = len(Grid(info.shape, tuple(max(1, n) for n in info.write_unit or info.shape)))
            if found[name] != wanted:
                folder = (self._draft.path / self._paths[name]).name
                raise self._torn(f"{folder} has {found[name]} of {wanted} chunks")

    def _remove_partial(self) -> None:
        # zarr leaves these where it is killed between writing a chunk and renaming it.
        for _, entry in files_below(self._draft.path):
            if entry.name.endswith(PARTIAL):
                os.unlink(entry.path)


def _is_stored(root: Path, part: StoredPart) -> bool:
    file = root / part.key
    inside = ".." not in file.relative_to(root).parts
    return inside and not file.is_symlink() and file.stat().st_size == part.nbytes


def _document(key: str, path: str) -> StoredPart:
    data = Path(path).read_bytes()
    return StoredPart(key, len(data), part_checksum(data))


def _forget(writer: BlockWriter) -> None:
    """Do nothing: a local store keeps no file open."""
