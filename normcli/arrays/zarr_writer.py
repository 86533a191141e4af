"""Blocks written into a Zarr draft, with size and checksum of every part that this makes."""

from __future__ import annotations

import asyncio
import contextlib
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
from normcli.arrays.zarr_chunk_form import ChunkForm
from normcli.arrays.zarr_layout import CONFIG
from normcli.domain.grid import Block, Grid
from normcli.zarr_loop import hush_zarr

PARTIAL = ".partial"


class _Folder:
    """The folder of a store, which keeps size and checksum of what one write puts into it.

    Parameters
    ----------
    root : Path
        The folder.
    append : bool
        Whether to end each part with its CRC-32C, as the codec of that name does.
    """

    def __init__(self, root: Path, append: bool) -> None:
        self.root = root
        self.parts: list[StoredPart] = []
        self._append = append

    def put(self, key: str, data: memoryview) -> None:
        """Store a part: under a name of its own, until it is whole."""
        path = f"{self.root}/{key}"
        draft = f"{path}.{uuid.uuid4().hex}{PARTIAL}"
        checksum = PartChecksum()
        file = _create(draft)
        try:
            try:
                write_checked(file, data, 0, checksum)
                if self._append:
                    tail = checksum.whole.to_bytes(4, "little")
                    write_checked(file, memoryview(tail), len(data), checksum)
            finally:
                os.close(file)
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        self.parts.append(StoredPart(key, checksum.nbytes, checksum.value))


class _RecordingStore(LocalStore):
    """A store whose parts go into a folder that keeps record of them."""

    def __init__(self, folder: _Folder) -> None:
        super().__init__(folder.root)
        self._folder = folder

    async def set(self, key: str, value: Buffer) -> None:
        """Store a part."""
        data = byte_view(value.as_numpy_array())
        await asyncio.to_thread(self._folder.put, key, data)


class BlockWriter:
    """An array of the draft, written without the codec that its store does the work of.

    zarr's own crc32c codec copies each chunk on the one thread of its event loop.
    """

    def __init__(self, root: Path, inner: str) -> None:
        hush_zarr()
        array = zarr.open_array(LocalStore(root), path=inner, mode="r+")
        self._root = root
        self._path = array.async_array.store_path.path
        self._chunks = array.chunks
        self._fill = array.fill_value
        self._metadata: Any = array.metadata
        self._append = _ends_with_checksum(array)
        self._form = ChunkForm.of(array)
        if self._append:
            settings: dict[str, Any] = self._metadata.to_dict()
            settings["codecs"] = settings["codecs"][:-1]
            self._metadata = type(self._metadata).from_dict(settings)

    def write(self, block: Block, values: np.ndarray) -> list[StoredPart]:
        """Write a block of whole chunks; each write keeps record of its own parts."""
        folder = _Folder(self._root, self._append)
        if self._form is None:
            place = StorePath(_RecordingStore(folder), self._path)
            array: Any = zarr.AsyncArray(self._metadata, place, CONFIG)
            call(array.setitem(block.slices, values))
        else:
            grid = Grid(values.shape, self._chunks)
            first = [a // n for a, n in zip(block.start, self._chunks, strict=True)]
            for number in range(len(grid)):
                one = grid.block(number)
                index = (a + b // n for a, b, n in zip(first, one.start, self._chunks, strict=True))
                key = self._metadata.encode_chunk_key(tuple(index))
                chunk = self._whole(values[one.slices])
                folder.put(f"{self._path}/{key}".lstrip("/"), self._form.encode(chunk))
        return folder.parts

    def _whole(self, values: np.ndarray) -> np.ndarray:
        """Return a chunk in full; one at an edge of the array goes on with the fill value."""
        if values.shape == self._chunks:
            return values
        whole = np.full(self._chunks, 0 if self._fill is None else self._fill, values.dtype)
        whole[tuple(slice(0, n) for n in values.shape)] = values
        return whole


def _create(path: str) -> int:
    """Create a file, and the folders above it where they are not there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def _ends_with_checksum(array: zarr.Array) -> bool:
    if array.metadata.zarr_format == 2 or array.shards or not array.compressors:
        return False
    return isinstance(array.compressors[-1], Crc32cCodec)
