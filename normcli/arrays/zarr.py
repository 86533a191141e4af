"""Zarr arrays of formats 2 and 3, read by block."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.files import read_error
from normcli.arrays.handles import PerProcess
from normcli.arrays.missing import Part, counted, refuse_huge_chunk
from normcli.arrays.rules import STRICT, InputRules
from normcli.arrays.zarr_calls import call
from normcli.arrays.zarr_chunk_files import ChunkFiles
from normcli.arrays.zarr_codecs import OversizedChunkError
from normcli.arrays.zarr_describe import (
    describe,
)
from normcli.arrays.zarr_documents import DOCUMENTS
from normcli.arrays.zarr_files import files_below
from normcli.arrays.zarr_frames import BoundedFrames
from normcli.arrays.zarr_listing import list_store
from normcli.arrays.zarr_open import (
    open_checked,
    unreadable,
)
from normcli.arrays.zarr_rust import zarrs_reader
from normcli.domain.dtypes import require_real
from normcli.domain.grid import Block
from normcli.errors import NormcliError, SafetyError
from normcli.retrying import retried


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
        array, document = open_checked(self._path, inner, self.name, rules)
        require_real(np.dtype(array.dtype), self.name)
        self.info = describe(array)
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
        """Return the elements of `block`, in `buffer` where it consists of whole chunks."""
        reader = self._handle.get()
        try:
            whole = reader.read_whole(block, buffer)
            if whole is not None:
                return whole
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
        try:
            for key, entry in files_below(folder):
                status = entry.stat()
                if key in DOCUMENTS:
                    digest.update(Path(entry.path).read_bytes())
                digest.update(f"{key}:{status.st_size}\n".encode())
                size += status.st_size
                mtime = max(mtime, status.st_mtime_ns)
        except OSError as error:
            raise read_error(error.filename or self.name, error) from error
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
        return unreadable(place, error)


class _Reader:
    """An open array, and the faster way into it where there is one."""

    def __init__(self, path: Path, inner: str, rules: InputRules) -> None:
        name = f"{path}/{inner}" if inner else str(path)
        array, document = open_checked(path, inner, name, rules)
        self.array = array
        self._files = ChunkFiles.of(path / inner, document, array)
        self._frames = BoundedFrames.of(path / inner, document, np.dtype(array.dtype).itemsize)
        self._own = array.async_array
        self._fast = None if self._frames is None else zarrs_reader(array, path)
        stored_plainly = not (array.compressors or array.filters or array.shards)
        self._cells = array.chunks if stored_plainly else None

    def read_whole(self, block: Block, buffer: BlockBuffer | None) -> np.ndarray | None:
        """Return the elements of a block of whole, sound chunks; None where it is not that."""
        files = self._files
        if files is None or not files.has_whole(block):
            return None
        # What fails here is tried again, and told of, where zarr reads it.
        with contextlib.suppress(Exception):
            values = files.read(block, buffer)
            return values.astype(values.dtype.newbyteorder("="), copy=False)
        return None

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


def _cuts(block: Block, cells: tuple[int, ...]) -> bool:
    edges = (*zip(block.start, cells, strict=True), *zip(block.stop, cells, strict=True))
    return any(edge % cell for edge, cell in edges)


def _forget(reader: _Reader) -> None:
    """Do nothing: a local store keeps no file open."""
