"""What a run will do, decided before anything is read or written."""

from __future__ import annotations

from dataclasses import dataclass

from normcli.domain.grid import Grid


@dataclass(frozen=True)
class Pass:
    """One walk over all blocks of the array.

    Attributes
    ----------
    kind : {"measure", "apply", "fused"}
        Take moments; normalize with known statistics; or both while a block is in memory.
    grid : Grid
        The cut into blocks.
    block_memory : int
        Bytes that one block costs while a worker holds it.
    bytes_read, bytes_written : int
        Decoded bytes over the whole pass, from storage or kept.
    reason : str
        Why the blocks are as they are, in words.
    """

    kind: str
    grid: Grid
    block_memory: int
    bytes_read: int
    bytes_written: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """The passes of a run, and the promise about memory.

    Attributes
    ----------
    passes : tuple of Pass
        In order.
    workers : int
        Blocks in flight at once.
    memory_budget : int
        Bytes that must not be exceeded, beside what the program itself needs.
    statistics_memory : int
        Bytes of statistics, scale and bias, and kept chunks of the input, for the whole run.
    kernel : {"numpy", "numba"}
        Which loops touch the elements.
    reason : str
        Why there are so many passes.
    kept_memory : int
        Bytes of decoded blocks that stay from the first pass to the second.
    """

    passes: tuple[Pass, ...]
    workers: int
    memory_budget: int
    statistics_memory: int
    kernel: str
    reason: str
    kept_memory: int = 0

    @property
    def peak_memory(self) -> int:
        """Most bytes held at once; never more than the budget."""
        dearest = max((p.block_memory for p in self.passes), default=0)
        return self.statistics_memory + self.workers * dearest + self.kept_memory

    @property
    def bytes_read(self) -> int:
        """Decoded bytes read over all passes, but for those that were kept."""
        return sum(p.bytes_read for p in self.passes) - self.kept_memory

    @property
    def bytes_written(self) -> int:
        """Decoded bytes written over all passes."""
        return sum(p.bytes_written for p in self.passes)

    @property
    def fused(self) -> bool:
        """Whether each block is read once, measured, normalized and written."""
        return self.passes[-1].kind == "fused"
