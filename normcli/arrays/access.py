"""What every source and every sink of blocks can do.

Sources and sinks are picklable values: they hold names, not handles, and each process opens its
own handle when it first reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.missing import MissingChunks, Part
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.publishing import Draft


class ArraySource(Protocol):
    """An array that can be read block by block, in any order and from any thread."""

    name: str
    info: ArrayInfo
    missing: MissingChunks
    remarks: tuple[str, ...]

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

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics, in its coordinates; None for all of it."""
        ...

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies each input behind this source: path, size, mtime, fingerprint."""
        ...

    def close(self) -> None:
        """Close the handles of this process."""
        ...


class WholeSource:
    """What is true of every source whose format stores all elements."""

    missing = MissingChunks()
    remarks: tuple[str, ...] = ()

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return None: all of `block` is stored."""
        return None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """What one write left in storage: a chunk, a shard, or a run of bytes.

    Attributes
    ----------
    key : str
        Its name inside the container, the same in every run: the path of a Zarr chunk in its
        store, or the array and the bounds of an HDF5 chunk or of a block of an NPY file.
    nbytes : int
        Bytes in storage.
    crc32c : int
        CRC-32C (Castagnoli) of these bytes, without the CRC-32C that they may end with.
    """

    key: str
    nbytes: int
    crc32c: int


class ArraySink(Protocol):
    """Arrays in the making: one or several in one container, all published at once.

    The order of calls is `create` or `resume`, then `write` from any thread and any process, then
    `annotate`, `seal`, `publish`. A sink without a place of its own (a pipe) is not `resumable`.
    `container` names its format, and `inside` has the arrays by their paths in the container.
    """

    name: str
    arrays: Mapping[str, ArrayInfo]
    resumable: bool
    container: str
    inside: Mapping[str, ArrayInfo]

    @property
    def draft(self) -> Draft:
        """The output in the making; a pipe has none."""
        ...

    def create(self) -> None:
        """Lay out the draft afresh."""
        ...

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Take up the draft that an interrupted run left.

        Parameters
        ----------
        parts : iterable of StoredPart
            What that run is known to have written.

        Returns
        -------
        bool
            Whether the draft is there and holds all parts; if not, `create` begins afresh.
        """
        ...

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block`, which no other writer touches, and return what it left.

        Blocks consist of whole write units (chunks or shards), so that no chunk is read back.
        Writing a block again, even at the same time, leaves the same bytes.
        """
        ...

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Make these parts durable, so that they survive the loss of power."""
        ...

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes of the container, in the process that publishes."""
        ...

    def seal(self) -> tuple[StoredPart, ...]:
        """End writing: close the draft, open it again to see that it is whole, make it durable.

        Returns
        -------
        tuple of StoredPart
            What no `write` returned: headers and metadata. With these, the parts are every byte
            of the container.

        Raises
        ------
        OutputError
            When the draft is not what was written.
        """
        ...

    def publish(self) -> None:
        """Make the sealed arrays appear under their final name, at once."""
        ...

    def close(self) -> None:
        """Let go of the draft, which stays where it is for `resume`."""
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
