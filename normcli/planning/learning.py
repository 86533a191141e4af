"""The plan of a learning run: which passes, and blocks that the shape alone decides.

Statistics and sums are taken over pieces that depend on neither chunks nor budget nor workers, so
what is learned has the same bits for any of them.
"""

from __future__ import annotations

from math import prod

import numpy as np

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.errors import PlanError
from normcli.planning import blocks
from normcli.planning.memory import (
    EXACT_COPIES,
    MIB,
    MOMENTS_BYTES,
    TABLE_BYTES,
    TILE_BYTES,
    cache_cost,
    exact_bytes,
    read_cost,
)
from normcli.planning.plan import Pass, Plan
from normcli.planning.planner import Resources

# Bytes of one cell in PairMoments: nine arrays of 8 bytes.
PAIR_BYTES = 72

# Sums up to this size are journaled, so that an interrupted run goes on; written down as text they
# take several times their size for a moment.
JOURNALED_BYTES = 16 * MIB

# Copies of the sums that are held at once: while they are folded, and in a journal. Measured: 2.8
# of four million, and 5.4 of 200 000.
COPIES, JOURNALED_COPIES = 3, 7

# A block as float64. 8 MiB of input, of target and of normalized values each stay below the
# smallest budget that fit and apply are used with.
UNIT_BYTES = 8 * MIB

# A block that holds whole groups may be larger, because it saves reading the input twice.
FUSED_BYTES = 4 * UNIT_BYTES


def plan_learn(
    source: ArrayInfo,
    target: ArrayInfo,
    geometry: Geometry,
    cells: Geometry,
    resources: Resources,
    kernel: str,
    groups_held: int,
    known: bool,
    per_dataset: bool,
) -> Plan:
    """Return the plan of a learning run.

    Parameters
    ----------
    source, target : ArrayInfo
        Input and target.
    geometry : Geometry
        Axes of the normalization.
    cells : Geometry
        Axes of the sums: the scale axes, and the batch axis by batches.
    resources : Resources
        Workers and memory.
    kernel : {"numpy", "numba"}
        Which loops touch the elements.
    groups_held : int
        Groups whose statistics stay in memory.
    known : bool
        Whether statistics are given.
    per_dataset : bool
        Whether statistics belong to the dataset.

    Raises
    ------
    PlanError
        When sums and one block do not fit the budget.
    """
    plain = ArrayInfo(source.shape, np.dtype(np.float64))
    groups = _multiples(geometry)
    both = (groups, _multiples(cells))
    cost = _Costs(source, target, geometry, cells)
    read = source.nbytes + target.nbytes
    unit = blocks.unit_shape(plain, both[1:])
    if known:
        reason = "one pass: the statistics are given"
    elif not per_dataset:
        fused = blocks.unit_shape(plain, both, geometry.aggregated)
        if 8 * prod(fused) <= FUSED_BYTES:
            unit, known, groups_held = fused, True, 0
            reason = "one pass: each block holds whole groups, is measured and summed at once"
    grid = Grid(source.shape, blocks.grow(plain, unit, UNIT_BYTES))
    why = "cut by the shape of the array alone"
    passes = [Pass("learn", grid, cost.learn(grid.block_shape), read, 0, why)]
    if not known:
        reason = "two passes: the statistics are measured first"
        grid = Grid(
            source.shape, blocks.grow(plain, blocks.unit_shape(plain, (groups,)), UNIT_BYTES)
        )
        measure = cost.measure(grid.block_shape)
        passes.insert(0, Pass("measure", grid, measure, source.nbytes, 0, why))
    held = groups_held * (2 * MOMENTS_BYTES + TABLE_BYTES) + cache_cost(source)
    copies = JOURNALED_COPIES if journaled(cells) else COPIES
    held += cache_cost(target) + copies * PAIR_BYTES * cells.group_count
    held += _waiting(passes[-1].grid, cells)
    dearest = max(p.block_memory for p in passes)
    if held + dearest > resources.memory:
        needed = -(-(held + dearest) // MIB)
        raise PlanError(
            f"To learn takes {dearest / MIB:.1f} MiB for one block and {held / MIB:.1f} MiB for "
            f"statistics and the sums of {cells.group_count} cells, but the memory budget is "
            f"{resources.memory / MIB:.1f} MiB.",
            f"--memory {needed}MiB would do; larger batches have fewer sums.",
        )
    most = max(len(p.grid) for p in passes)
    workers = max(1, min(resources.workers, (resources.memory - held) // dearest, most))
    return Plan(tuple(passes), int(workers), resources.memory, held, kernel, reason)


def journaled(cells: Geometry) -> bool:
    """Return whether the sums of these cells are small enough to be written down on the way."""
    return PAIR_BYTES * cells.group_count <= JOURNALED_BYTES


class _Costs:
    """What one block costs a worker."""

    def __init__(
        self, source: ArrayInfo, target: ArrayInfo, geometry: Geometry, cells: Geometry
    ) -> None:
        self._source, self._target = source, target
        self._geometry, self._cells = geometry, cells

    def measure(self, block: tuple[int, ...]) -> int:
        return _ordered(self._source, block) + TILE_BYTES + self._groups(block)

    def learn(self, block: tuple[int, ...]) -> int:
        arrays = _ordered(self._source, block) + _ordered(self._target, block)
        sums = 3 * PAIR_BYTES * _touched(self._cells, block)
        return arrays + 8 * prod(block) + 2 * TILE_BYTES + self._groups(block) + sums

    def _groups(self, block: tuple[int, ...]) -> int:
        exact = EXACT_COPIES * exact_bytes(self._source.dtype)
        return (exact + MOMENTS_BYTES + TABLE_BYTES) * _touched(self._geometry, block)


def _waiting(grid: Grid, cells: Geometry) -> int:
    """Return the bytes of sums that wait in the merge tree of one region: one node a level."""
    ranks = prod(n for axis, n in enumerate(grid.counts) if axis not in cells.kept)
    return ranks.bit_length() * PAIR_BYTES * _touched(cells, grid.block_shape)


def _ordered(info: ArrayInfo, block: tuple[int, ...]) -> int:
    """Return the bytes of reading a block and bringing it into C order."""
    copied = prod(block) * info.dtype.itemsize if info.fortran_order else 0
    return read_cost(info, block) + copied


def _touched(geometry: Geometry, block: tuple[int, ...]) -> int:
    return prod(-(-block[axis] // geometry.segments[axis]) for axis in geometry.kept)


def _multiples(geometry: Geometry) -> tuple[int, ...]:
    """Return multiples that keep the segments of a divided axis whole."""
    return tuple(
        segment if axis in geometry.kept else 1 for axis, segment in enumerate(geometry.segments)
    )
