"""Blocks of whole chunks, read from their files without zarr's event loop."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from normcli.arrays.buffers import BlockBuffer, BufferPool, block_array
from normcli.arrays.zarr_chunk_form import ChunkForm
from normcli.arrays.zarr_documents import ArrayDocument
from normcli.domain.grid import Block, Grid

# What a codec may add to a chunk that it cannot compress.
_GROWTH = 1.05
_SLACK = 4096


class ChunkFiles:
    """The files of the chunks of an array.

    Parameters
    ----------
    folder : Path
        The folder of the array.
    document : ArrayDocument
        Its metadata.
    form : ChunkForm
        How chunks are stored.
    """

    def __init__(self, folder: Path, document: ArrayDocument, form: ChunkForm) -> None:
        self._folder = folder
        self._document = document
        self._form = form
        self._stored = BufferPool()
        self._decoded = BufferPool()

    @classmethod
    def of(cls, folder: Path, document: ArrayDocument, array: zarr.Array) -> ChunkFiles | None:
        """Return the files of an array; None where its chunks are left to zarr."""
        form = ChunkForm.of(array)
        return cls(folder, document, form) if form is not None and form.decodes else None

    def has_whole(self, block: Block) -> bool:
        """Whether a block consists of whole chunks."""
        edges = zip(block.start, block.stop, self._form.shape, self._document.shape, strict=True)
        return all(a % n == 0 and (b % n == 0 or b == end) for a, b, n, end in edges)

    def read(self, block: Block, buffer: BlockBuffer | None) -> np.ndarray:
        """Return the elements of a block of whole chunks.

        Raises
        ------
        OSError, ValueError, RuntimeError
            When a chunk is not there or not sound. Whoever reads it otherwise finds out.
        """
        values = block_array(block.shape, self._form.dtype, buffer)
        shape = self._form.shape
        first = tuple(a // n for a, n in zip(block.start, shape, strict=True))
        cells = Grid(block.shape, shape)
        with self._stored.lend() as stored:
            for cell in map(cells.block, range(len(cells))):
                index = tuple(i + a // n for i, a, n in zip(first, cell.start, shape, strict=True))
                place: Any = (*cell.slices, ...)
                self._read_chunk(index, values[place], stored)
        return values

    def _read_chunk(self, index: tuple[int, ...], room: np.ndarray, stored: BlockBuffer) -> None:
        path = self._folder / self._document.key(index)
        if room.shape == self._form.shape and room.flags.c_contiguous:
            self._form.decode(self._contents(path, stored), room)
            return
        with self._decoded.lend() as buffer:
            whole = buffer.array(self._form.shape, self._form.dtype)
            self._form.decode(self._contents(path, stored), whole)
            room[...] = whole[tuple(slice(0, n) for n in room.shape)]

    def _contents(self, path: Path, stored: BlockBuffer) -> memoryview:
        """Read a file that can be a chunk."""
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(file)
            size = status.st_size
            if not stat.S_ISREG(status.st_mode) or size > _GROWTH * self._form.nbytes + _SLACK:
                raise ValueError("not the file of a chunk")
            view = memoryview(stored.array((size,), np.dtype(np.uint8)))  # type: ignore[arg-type]
            done = 0
            while done < size:
                count = os.preadv(file, [view[done:]], done)
                if not count:
                    raise ValueError("the file was cut meanwhile")
                done += count
            return view
        finally:
            os.close(file)
