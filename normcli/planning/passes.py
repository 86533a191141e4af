"""How one pass cuts the array: which blocks, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.planning import blocks
from normcli.planning.memory import (
    EXACT_COPIES,
    MIB,
    MOMENTS_BYTES,
    PLAIN,
    SKETCH_COPIES,
    TABLE_BYTES,
    TILE_BYTES,
    WAITING_COPIES,
    MethodCost,
    exact_bytes,
    read_cost,
    write_cost,
)
from normcli.planning.plan import Pass

# Largest piece that is measured at once for moving statistics, whose blocks are cut along batches.
MOVING_UNIT_BYTES = 64 * MIB

# Statistics of the groups of one block are kept below this, as far as chunks allow.
GROUPS_BYTES = 64 * MIB

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PassPlanner:
    """Plans passes over one array.

    A pass that cannot fit is returned all the same, at its smallest; who asked compares its cost
    with the memory.

    Attributes
    ----------
    source : ArrayInfo
        The input.
    geometry : Geometry
        Axes of the normalization on it.
    available : int
        Bytes for the blocks of one worker.
    sink : ArrayInfo or None
        The output; None for passes that only measure.
    method : MethodCost
        What the method takes beside moments.
    """

    source: ArrayInfo
    geometry: Geometry
    available: int
    sink: ArrayInfo | None = None
    method: MethodCost = PLAIN

    def measure(self) -> Pass:
        """Return a pass that takes moments."""
        segments = self._kept_segments()
        whole = self._stream_axes()
        unit = blocks.unit_shape(self.source, (self.source.chunks, segments), whole)
        if self._cost(unit) > self.available:
            # Chunks and segments together may be too much where each alone is not.
            unit = blocks.unit_shape(self.source, (segments,), whole)
        reason = "blocks of whole chunks" if self.source.chunks else "contiguous blocks"
        return self._pass("measure", self._of_few_groups(unit), reason)

    def moving(self, batch: int) -> Pass:
        """Return a pass that takes moments of whole batches, cut by the shape alone.

        Parameters
        ----------
        batch : int
            The batch axis, along which `geometry` has one segment a batch.
        """
        plain = ArrayInfo(self.source.shape, self.source.dtype)
        one_batch = tuple(
            self.geometry.segments[axis] if axis == batch else n
            for axis, n in enumerate(self.source.shape)
        )
        unit = blocks.shrink(plain, one_batch, {batch}, MOVING_UNIT_BYTES)
        block = unit
        if unit == one_batch:
            # Whole batches may share a block.
            target = blocks.TARGET_BYTES
            block = blocks.lengthen(plain, unit, batch, target)
            while self._cost(block) > self.available and block != unit:
                target //= 2
                block = blocks.lengthen(plain, unit, batch, target)
        reason = "whole batches, cut by the shape of the array alone"
        return self._pass("measure", block, reason)

    def apply(self) -> Pass:
        """Return a pass that normalizes with known statistics."""
        write_unit = self._write_unit()
        whole = self._stream_axes()
        unit = blocks.unit_shape(self.source, (write_unit, self.source.chunks), whole)
        outgrown = write_unit is not None and self._nbytes(unit) > blocks.TARGET_BYTES
        if outgrown or self._cost(unit, False) > self.available:
            # Chunks of both sides together are too much; those of the input are then read twice.
            unit = blocks.unit_shape(self.source, (write_unit,), whole)
        reason = "blocks of whole output chunks" if write_unit else "contiguous blocks"
        return self._pass("apply", self._fitting(unit), reason)

    def fused(self) -> Pass | None:
        """Return a pass whose blocks hold whole groups, or None where not one group fits."""
        whole = (*self.geometry.aggregated, *self._stream_axes())
        own = (self._write_unit(), self._kept_segments())
        unit = blocks.unit_shape(self.source, (*own, self.source.chunks), whole)
        if self._nbytes(unit) > blocks.TARGET_BYTES:
            unit = blocks.unit_shape(self.source, own, whole)
        if self._cost(unit) > self.available:
            return None
        return self._pass(
            "fused", self._of_few_groups(unit), "blocks whole along the aggregated axes"
        )

    def _pass(self, kind: str, block: Shape, reason: str) -> Pass:
        written = 0 if self.sink is None else self.sink.nbytes
        grid = Grid(self.source.shape, block)
        cost = self._cost(block, measured=kind != "apply")
        return Pass(kind, grid, cost, self.source.nbytes, written, reason)

    def _cost(self, block: Shape, measured: bool = True) -> int:
        cost = read_cost(self.source, block) + TILE_BYTES
        groups = self._groups(block)
        rounded = MOMENTS_BYTES + self.method.arrays
        if measured:
            cost += groups * EXACT_COPIES * (exact_bytes(self.source.dtype) + self.method.sums)
            cost += self.method.worker
            if self._in_pieces(block):
                # Groups that are not kept let go of their sketches with the last of their blocks.
                waiting = 0 if self.method.merged else WAITING_COPIES
                cost += groups * (SKETCH_COPIES + waiting) * self.method.sketch
            else:
                cost += prod(block) * self.method.element
        if self.sink is None:
            return cost + groups * rounded
        return cost + write_cost(self.sink, block) + 3 * groups * (rounded + TABLE_BYTES)

    def _in_pieces(self, block: Shape) -> bool:
        """Whether groups are put together of several blocks, or kept as if they were."""
        shape = self.source.shape
        whole = all(block[axis] >= shape[axis] for axis in self.geometry.aggregated)
        return self.method.merged or not whole

    def _fitting(self, unit: Shape) -> Shape:
        """Return a block of whole units that fits, or one unit where not even that does."""
        target = self._target()
        block = blocks.grow(self.source, unit, target)
        while self._cost(block, False) > self.available and target > self.source.dtype.itemsize:
            target //= 2
            block = blocks.grow(self.source, unit, target)
        return block

    def _of_few_groups(self, unit: Shape) -> Shape:
        """Return a block to be measured that fits, of no more groups than it must have.

        Where their sums would outweigh the elements of a block that is one run of storage, blocks
        grow along the aggregated axes first.
        """
        target = self._target()
        block = blocks.grow(self.source, unit, target)
        single = exact_bytes(self.source.dtype) + self.method.sums
        first: Shape = ()
        height = prod(self.source.shape[axis] for axis in self.geometry.aggregated)
        run = max(min(target // height, blocks.RUN_BYTES), blocks.LEAST_RUN_BYTES)
        while target > self.source.dtype.itemsize:
            sums = self._groups(block) * single
            # Sketches grow with the elements they stand for; only what they cost decides.
            if not first and self.geometry.aggregated and sums > self._nbytes(block):
                first = self.geometry.aggregated
            elif self._cost(block) > self.available or sums * EXACT_COPIES > GROUPS_BYTES:
                if first and run > blocks.LEAST_RUN_BYTES:
                    run //= 2
                else:
                    target //= 2
            else:
                break
            start = blocks.grow(self.source, unit, min(target, run)) if first else unit
            block = blocks.grow(self.source, start, target, first)
        return block

    def _target(self) -> int:
        chunked = self.source.chunks is not None or self._write_unit() is not None
        return blocks.TARGET_BYTES if chunked else blocks.CONTIGUOUS_BYTES

    def _groups(self, block: Shape) -> int:
        """Return the number of groups that one block touches."""
        segments = self.geometry.segments
        return prod(-(-block[axis] // segments[axis]) for axis in self.geometry.kept)

    def _nbytes(self, block: Shape) -> int:
        return prod(block) * self.source.dtype.itemsize

    def _write_unit(self) -> Shape | None:
        return None if self.sink is None else self.sink.write_unit

    def _kept_segments(self) -> Shape:
        """Return multiples that keep the segments of a divided axis whole."""
        return tuple(
            segment if axis in self.geometry.kept else 1
            for axis, segment in enumerate(self.geometry.segments)
        )

    def _stream_axes(self) -> Shape:
        """Return axes that cannot be cut, because elements come or go in order of storage."""
        infos = (self.source,) if self.sink is None else (self.source, self.sink)
        if any(info.storage == "stream" for info in infos):
            return tuple(range(1, self.source.ndim))
        return ()
