"""What every source and every sink of blocks can do.

Sources and sinks are picklable values: they hold names, not handles, and each process opens its
own handle when it first reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from normcli.arrays.buffers import BlockBuffer
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block


class ArraySource(Protocol):
    """An array that can be read block by block, in any order and from any thread."""

    name: str
    info: ArrayInfo

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block` in native byte order.

        Parameters
        ----------
        block : Block
            The block.
        buffer : BlockBuffer, optional
            Memory that the elements may be read into. A source whose library makes an array of
            its own leaves it alone.

        Returns
        -------
        ndarray
            Dense in C or Fortran order. It belongs to the caller: for good without `buffer`, and
            until the next read into the same `buffer` with it.

        Raises
        ------
        InputError
            When storage cannot give what it promised.
        """
        ...

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies each input behind this source: path, size, mtime, fingerprint."""
        ...

    def close(self) -> None:
        """Close the handles of this process."""
        ...


class ArraySink(Protocol):
    """Arrays in the making: one or several in one container, all published at once."""

    name: str
    arrays: Mapping[str, ArrayInfo]

    def create(self) -> None:
        """Lay out the draft; must be called once, before any `write`."""
        ...

    def write(self, array: str, block: Block, values: np.ndarray) -> None:
        """Write the elements of `block`, which no other writer touches.

        Blocks consist of whole write units (chunks or shards), so that no chunk is read back.
        """
        ...

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes of the container, in the process that publishes."""
        ...

    def publish(self) -> None:
        """Make the complete arrays appear under their final name, at once."""
        ...

    def discard(self) -> None:
        """Remove everything written so far."""
        ...


@dataclass(frozen=True)
class ArrayEntry:
    """One array found in a container, for listings.

    Attributes
    ----------
    path : str
        Path inside the container; empty where the container is the array.
    info : ArrayInfo
        Its shape, type and storage.
    stored_bytes : int or None
        Bytes in storage, where the format tells.
    """

    path: str
    info: ArrayInfo
    stored_bytes: int | None
