"""Arrays whose elements are read and decoded by child processes alone.

The first look at an input, in `normcli.isolation`, is at its metadata and one chunk. Here no chunk
ever meets a library in this process: what kills, blocks or bloats a library does so to a child, and
becomes an error that names the chunk. Elements come back through memory that both share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.handles import PerProcess
from normcli.arrays.isolated_child import (
    Child,
    EndedError,
    Opener,
)
from normcli.arrays.missing import Part
from normcli.arrays.rules import InputRules
from normcli.domain.grid import Block
from normcli.errors import NormcliError


def isolated(
    source: ArraySource, format: str, container: Path, inner: str, rules: InputRules
) -> IsolatedSource:
    """Return an array of an HDF5 file or a Zarr store, as `open_stored` opened it, isolated."""
    arguments = (format, str(container.absolute()), inner, asdict(rules))
    return IsolatedSource(source, Opener("normcli.arrays.isolated_reader", "open_array", arguments))


class IsolatedSource:
    """A source whose elements are read by children, one for each block in flight.

    Parameters
    ----------
    source : ArraySource
        The array, opened here; its `read` is never called.
    opener : Opener
        How a child opens the same.
    """

    def __init__(self, source: ArraySource, opener: Opener) -> None:
        self._source = source
        self._opener = opener
        self.name, self.info = source.name, source.info
        self.missing, self.remarks = source.missing, source.remarks
        self._children = PerProcess(partial(_Children, opener), _Children.close)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`.

        Raises
        ------
        InputError
            When the library that decodes them was killed, or did not end; or as the source does.
        SafetyError
            When it asked for more memory than any sound chunk needs.
        """
        children = self._children.get()
        try:
            return children.read(block, self.info.dtype, buffer)
        except EndedError as ended:
            raise self._named(children, block, ended) from ended

    def stored_parts(self, block: Block) -> list[Part] | None:
        """Return what of `block` counts in statistics; None for all of it."""
        return self._source.stored_parts(block)

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return what identifies the input: path, size, mtime, fingerprint."""
        return self._source.identity()

    def close(self) -> None:
        """End the children of this process."""
        self._children.close()
        self._source.close()

    def _named(self, children: _Children, block: Block, ended: EndedError) -> NormcliError:
        """Return the error for a block, with the first chunk in it that ends a child by itself."""
        place = f"{self.name} at {block.start}"
        for chunk in _chunks(block, self.info.write_unit):
            try:
                children.read(chunk, self.info.dtype, None)
            except EndedError as own:
                place, ended = f"{self.name} at {chunk.start}", own
                break
            except NormcliError:
                continue
        return ended.told(place)


class _Children:
    """Children that are ready to read; as many as read at once."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._free: list[Child] = []

    def read(self, block: Block, dtype: np.dtype, buffer: BlockBuffer | None) -> np.ndarray:
        with self._lock:
            child = self._free.pop() if self._free else None
        child = child or Child(self._opener)
        try:
            values = child.read(block, dtype, buffer)
        except NormcliError:
            self._take_back(child)
            raise
        except BaseException:
            child.end()
            raise
        self._take_back(child)
        return values

    def close(self) -> None:
        with self._lock:
            free, self._free = self._free, []
        for child in free:
            child.end()

    def _take_back(self, child: Child) -> None:
        with self._lock:
            self._free.append(child)


def _chunks(block: Block, unit: tuple[int, ...] | None) -> Iterable[Block]:
    """Yield the parts of a block that lie in one chunk each."""
    if unit is None or not all(unit):
        return
    spans = []
    for start, stop, n in zip(block.start, block.stop, unit, strict=True):
        edges = [start, *range((start // n + 1) * n, stop, n), stop]
        spans.append(list(pairwise(edges)))
    for number, sides in enumerate(product(*spans)):
        yield Block(number, tuple(a for a, _ in sides), tuple(b for _, b in sides))
