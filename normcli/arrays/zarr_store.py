"""A folder of chunks that tells damage from absence."""

from __future__ import annotations

import os

from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

_BLOSC_HEADER = 16


class CheckedStore(LocalStore):
    """A local store for reading, in which only what is not there counts as missing.

    zarr-python's store also takes a folder in the place of a chunk, and a file in the place of a
    folder, for missing chunks, and its sharding codec takes an empty file for one. Missing chunks
    read as fill values.

    Attributes
    ----------
    blosc : bool
        Whether whole files are Blosc frames. Blosc's decoder is not told how many bytes it is
        given: of a truncated frame it decodes whatever memory follows, without an error.
    """

    blosc: bool = False

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
        elif self.blosc and byte_range is None and not key.endswith(_DOCUMENTS):
            _require_frame(key, value)
        return value


_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def _require_missing(path: str) -> None:
    try:
        os.stat(path)
    except FileNotFoundError:
        return
    raise IsADirectoryError(f"{path} is no file")


def _require_frame(key: str, value: Buffer) -> None:
    header = value.as_numpy_array()[:_BLOSC_HEADER].tobytes()
    told = int.from_bytes(header[12:], "little")
    if len(header) < _BLOSC_HEADER or told != len(value):
        raise ValueError(f"{key} has {len(value)} bytes where its header tells {told}")
