"""A folder of chunks that tells damage from absence."""

from __future__ import annotations

import os

from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore


class CheckedStore(LocalStore):
    """A local store for reading, in which only what is not there counts as missing.

    zarr-python's store also takes a folder in the place of a chunk, and a file in the place of a
    folder, for missing chunks, and its sharding codec takes an empty file for one. Missing chunks
    read as fill values.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return bytes of a file; None where it does not exist.

        Raises
        ------
        OSError
            When something else than a readable file is in its place.
        ValueError
            When the file is shorter than what it must hold.
        """
        value = await super().get(key, prototype, byte_range)
        if value is None:
            _require_missing(os.path.join(self.root, key))
            return None
        if isinstance(byte_range, RangeByteRequest):
            if len(value) < byte_range.end - byte_range.start:
                raise ValueError(f"{key} ends before byte {byte_range.end}")
        elif not len(value):
            raise ValueError(f"{key} is empty")
        return value


def _require_missing(path: str) -> None:
    try:
        os.stat(path)
    except FileNotFoundError:
        return
    raise IsADirectoryError(f"{path} is no file")
