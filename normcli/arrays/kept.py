"""Blocks that stay in memory between two passes over one array, so that they are decoded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.missing import Part
from normcli.domain.grid import Block

# The blocks, by where they begin and end. One thread adds or takes each of them, and a dict does
# both at once.
KeptBlocks = dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray]


class _Before:
    """A source in front of another one, of the same process."""

    def __init__(self, source: ArraySource, blocks: KeptBlocks) -> None:
        self._source, self._blocks = source, blocks
        self.name, self.info = source.name, source.info
        self.missing, self.remarks = source.missing, source.remarks

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self._source.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies each input."""
        return self._source.identity()

    def close(self) -> None:
        """Close the handles of this process."""
        self._source.close()


class KeepingSource(_Before):
    """Keeps every block that it reads; for a pass that does not write to them."""

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in memory of their own."""
        values = self._source.read(block)
        self._blocks[block.start, block.stop] = values
        return values


class KeptSource(_Before):
    """Gives each block away that was kept, once, and reads the others."""

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`."""
        kept = self._blocks.pop((block.start, block.stop), None)
        return self._source.read(block, buffer) if kept is None else kept
