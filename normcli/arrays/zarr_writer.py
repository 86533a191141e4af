"""Blocks written into a Zarr draft, with size and checksum of every part that this makes."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, StorePath

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum
from normcli.arrays.raw_writer import write_checked
from normcli.arrays.runs import byte_view
from normcli.arrays.zarr_calls import call
from normcli.arrays.zarr_layout import CONFIG
from normcli.domain.grid import Block

PARTIAL = ".partial"


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
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
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


class BlockWriter:
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
        array: Any = zarr.AsyncArray(self._metadata, place, CONFIG)
        call(array.setitem(block.slices, values))
        return store.parts


def _ends_with_checksum(array: zarr.Array) -> bool:
    if array.metadata.zarr_format == 2 or array.shards or not array.compressors:
        return False
    return isinstance(array.compressors[-1], Crc32cCodec)
