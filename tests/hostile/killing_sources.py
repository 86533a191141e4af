"""Arrays whose second chunk does to a process what libraries do with hostile files, on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from normcli import isolation
from normcli.arrays import isolated_reader
from normcli.arrays.access import WholeSource
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.errors import DataPolicyError
from tests.hostile import killers

SHAPE, CHUNKS = (6, 4), (2, 4)
VALUES = np.arange(24, dtype=">f4").reshape(SHAPE)


def refuse(path: str) -> None:
    raise DataPolicyError("the second chunk is not wanted", "Leave it out.")


def print_much(path: str) -> None:
    os.write(1, b'{"order": "F"}\n' * 100)


class Killing(WholeSource):
    """Reads `VALUES`; the second chunk lets something happen before."""

    name = "killing"
    info = ArrayInfo(SHAPE, VALUES.dtype, CHUNKS)

    def __init__(self, happens: Callable[[str], None], order: str) -> None:
        self._happens, self._order = happens, order

    def read(self, block: Block, buffer=None) -> np.ndarray:
        if block.start[0] < 4 and block.stop[0] > 2:
            self._happens(self.name)
        native = VALUES[block.slices].astype("=f4")
        return np.asarray(native, order=self._order)

    def identity(self):
        return ()

    def close(self) -> None:
        pass


def open_sound() -> Killing:
    """Return the source as the process that asks sees it; nothing happens here."""
    return Killing(print, "C")


def open_killing(happens: str, order: str = "C") -> Killing:
    """Return a source in the child, with limits that a test can wait for."""
    isolated_reader.CPU_SECONDS = 1
    isolation.MEMORY_BYTES = 256 << 20
    return Killing(globals().get(happens) or getattr(killers, happens), order)
