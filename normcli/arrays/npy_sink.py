"""NPY files in the making."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import part_checksum
from normcli.arrays.drafts import Contents, DraftedSink
from normcli.arrays.npy_format import write_header
from normcli.arrays.part_keys import span_key
from normcli.arrays.raw_writer import RawWriter, holds_all, is_laid_out, lay_out
from normcli.domain.grid import Block


class NpySink(DraftedSink):
    """One NPY file in the making, written from any process of this file system.

    Parameters
    ----------
    contents : Contents
        The file, and its one array, under any key.
    """

    container = "npy"

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        (self._info,) = self.arrays.values()
        self._header = write_header(self._info, self.name)
        self._writer = RawWriter(self._draft.path, self.name, self._info, len(self._header))

    def create(self) -> None:
        """Lay out the draft: the header, and the room for the elements."""
        self._draft.make_room()
        try:
            lay_out(self._draft.path, self._header, self._info.nbytes)
        except OSError as error:
            raise self._failed(error) from error

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Take up the draft, where it has this header and this length."""
        whole = is_laid_out(self._draft.path, self._header, self._info.nbytes)
        return whole and holds_all([self._writer], parts)

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block`."""
        self.arrays[array]
        return self._writer.write(block, values)

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Make the file durable."""
        self._writer.sync()

    def seal(self) -> tuple[StoredPart, ...]:
        """Close the file, see that it is whole, and make it durable."""
        self.close()
        if not is_laid_out(self._draft.path, self._header, self._info.nbytes):
            raise self._torn("its header or its length has changed")
        self._draft.sync()
        length = len(self._header)
        return (StoredPart(span_key(0, length), length, part_checksum(self._header)),)

    def close(self) -> None:
        """Close the handle of this process."""
        self._writer.close()
