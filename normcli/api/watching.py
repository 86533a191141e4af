"""A source that goes on behind what cannot be read, and remembers it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.missing import Part
from normcli.domain.grid import Block, Grid
from normcli.errors import InputError


class WatchedSource:
    """Reads an array for verification; a damaged chunk reads as zeros and is named.

    Parameters
    ----------
    source : ArraySource
        The array.

    Attributes
    ----------
    problems : list of str
        What could not be read, one line for each damaged chunk.
    """

    def __init__(self, source: ArraySource) -> None:
        self.name, self.info = source.name, source.info
        self.missing, self.remarks = source.missing, source.remarks
        self.problems: list[str] = []
        self._source = source
        self._lock = threading.Lock()

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, or zeros where they cannot be read."""
        try:
            return self._source.read(block, buffer)
        except InputError as error:
            with self._lock:
                self.problems += self._damaged(block) or [error.message]
            return np.zeros(block.shape, self.info.dtype.newbyteorder("="))

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self._source.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies the input."""
        return self._source.identity()

    def close(self) -> None:
        """Close the handles."""
        self._source.close()

    def _damaged(self, block: Block) -> list[str]:
        """Return what is wrong with each damaged chunk of a block."""
        if self.info.chunks is None:
            return []
        found = []
        for cell in Grid(block.shape, tuple(map(min, self.info.chunks, block.shape))):
            start, stop = (
                tuple(a + b for a, b in zip(block.start, ends, strict=True))
                for ends in (cell.start, cell.stop)
            )
            try:
                self._source.read(Block(0, start, stop))
            except InputError as error:
                found.append(error.message)
        return found
