"""make_plan: from arrays, axes and a budget to passes over blocks.

The blocks depend on the arrays and, only where they would not fit otherwise, on the budget. They
never depend on the number of workers, so neither do the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.errors import PlanError
from normcli.planning import blocks
from normcli.planning.memory import (
    MIB,
    MOMENTS_BYTES,
    TABLE_BYTES,
    TILE_BYTES,
    read_cost,
    write_cost,
)
from normcli.planning.plan import Pass, Plan

# Largest piece that is measured at once for moving statistics. The cut follows the shape of the
# array alone, so that the moving average has the same bits for any chunks and any budget.
MOVING_UNIT_BYTES = 64 * MIB

# Statistics of this many groups stay in memory; more are written by block.
GROUPS_IN_MEMORY = 1_000_000


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes
    ----------
    workers : int
        Most blocks in flight at once.
    memory : int
        Bytes for all of them together, statistics included.
    """

    workers: int
    memory: int


def plan_fit(
    source: ArrayInfo,
    geometry: Geometry,
    resources: Resources,
    kernel: str,
    groups_held: int,
    moving_axis: int | None = None,
) -> Plan:
    """Return the plan of one measuring pass.

    Parameters
    ----------
    source : ArrayInfo
        The input.
    geometry : Geometry
        Its axes; for moving statistics, those of one batch.
    resources : Resources
        Workers and memory.
    kernel : {"numpy", "numba"}
        Which loops touch the elements.
    groups_held : int
        Groups whose statistics stay in memory.
    moving_axis : int, optional
        The batch axis, where moving statistics are kept: the pieces that are measured then
        depend on neither chunks nor budget.

    Raises
    ------
    PlanError
        When one block does not fit the budget.
    """
    held = _statistics_memory(groups_held)
    if moving_axis is not None:
        measure = _moving_pass(source, geometry, resources, held, moving_axis)
        reason = "one pass: batches are measured whole and folded in order"
    else:
        measure = _measure_pass(source, geometry, resources, held)
        reason = "one pass: moments of blocks are merged"
    in_order = source.storage == "stream"
    return _plan((measure,), source, resources, held, kernel, reason, in_order)


def plan_apply(
    source: ArrayInfo,
    sink: ArrayInfo,
    geometry: Geometry,
    resources: Resources,
    kernel: str,
    groups_held: int,
    known: bool,
    per_dataset: bool,
    affine_bytes: int = 0,
) -> Plan:
    """Return the plan of an apply.

    Parameters
    ----------
    source, sink : ArrayInfo
        Input and output.
    geometry : Geometry
        Axes of the normalization on this input.
    resources, kernel, groups_held
        As for `plan_fit`.
    known : bool
        Whether statistics are given, so that nothing needs to be measured.
    per_dataset : bool
        Whether statistics belong to the dataset, which must be seen whole before the first
        element can be written.
    affine_bytes : int
        Bytes of scale and bias.

    Raises
    ------
    PlanError
        When one block does not fit the budget, or a stream would have to be read twice.
    """
    held = affine_bytes + _statistics_memory(groups_held)
    in_order = "stream" in (source.storage, sink.storage)
    if known:
        only = (_apply_pass(source, sink, geometry, resources, held),)
        reason = "one pass: the statistics are given"
        return _plan(only, source, resources, held, kernel, reason, in_order)
    if not per_dataset:
        fused = _fused_pass(source, sink, geometry, resources, held)
        if fused is not None:
            reason = "one pass: each block holds whole groups, is measured and normalized at once"
            return _plan((fused,), source, resources, held, kernel, reason, in_order)
    why = (
        "the statistics belong to the whole dataset"
        if per_dataset
        else f"one group of {_size(geometry.group_size * source.dtype.itemsize)} outgrows a block"
    )
    if source.storage == "stream":
        raise PlanError(
            f"Two passes are needed, because {why}, but a pipe can be read only once.",
            "Fit first and pass --stats, write the input to a file, or use more --memory.",
        )
    passes = (
        _measure_pass(source, geometry, resources, held),
        _apply_pass(source, sink, geometry, resources, held),
    )
    return _plan(passes, source, resources, held, kernel, f"two passes: {why}", in_order)


def _measure_pass(source: ArrayInfo, geometry: Geometry, resources: Resources, held: int) -> Pass:
    segments = _kept_segments(geometry)
    whole = _stream_axes(source)
    unit = blocks.unit_shape(source, (source.chunks, segments), whole)

    def cost(block: tuple[int, ...]) -> int:
        return read_cost(source, block) + TILE_BYTES + 2 * _group_bytes(geometry, block)

    if cost(unit) > resources.memory - held:
        # Chunks and segments together may be too much where each alone is not.
        unit = blocks.unit_shape(source, (segments,), whole)
    block = _fit_block(source, unit, cost, resources, held)
    reason = "blocks of whole chunks" if source.chunks else "contiguous blocks"
    return Pass("measure", Grid(source.shape, block), cost(block), source.nbytes, 0, reason)


def _moving_pass(
    source: ArrayInfo, geometry: Geometry, resources: Resources, held: int, batch: int
) -> Pass:
    # The cut must depend on the shape alone, not on how the array is stored.
    plain = ArrayInfo(source.shape, source.dtype)
    one_batch = tuple(
        geometry.segments[axis] if axis == batch else n for axis, n in enumerate(source.shape)
    )
    unit = blocks.shrink(plain, one_batch, {batch}, MOVING_UNIT_BYTES)

    def cost(block: tuple[int, ...]) -> int:
        return read_cost(source, block) + TILE_BYTES + 2 * _group_bytes(geometry, block)

    block = unit
    if unit == one_batch:
        # Whole batches may share a block: each is measured in the same order as alone.
        target = blocks.TARGET_BYTES
        block = _grow_axis(plain, unit, batch, target)
        while cost(block) > resources.memory - held and block != unit:
            target //= 2
            block = _grow_axis(plain, unit, batch, target)
    reason = "whole batches, cut by the shape of the array alone"
    return Pass("measure", Grid(source.shape, block), cost(block), source.nbytes, 0, reason)


def _grow_axis(info: ArrayInfo, unit: tuple[int, ...], axis: int, target: int) -> tuple[int, ...]:
    size = prod(unit) * info.dtype.itemsize
    extent = min(info.shape[axis], unit[axis] * max(1, target // size))
    return tuple(extent if a == axis else n for a, n in enumerate(unit))


def _apply_pass(
    source: ArrayInfo, sink: ArrayInfo, geometry: Geometry, resources: Resources, held: int
) -> Pass:
    cost = _apply_cost(source, sink, geometry)
    whole = _stream_axes(source, sink)
    write_unit = sink.write_unit
    unit = blocks.unit_shape(source, (write_unit, source.chunks), whole)
    outgrown = write_unit is not None and _nbytes(source, unit) > blocks.TARGET_BYTES
    if outgrown or cost(unit) > resources.memory - held:
        # Chunks of both sides together are too much; those of the input are then read twice.
        unit = blocks.unit_shape(source, (write_unit,), whole)
    block = _fit_block(source, unit, cost, resources, held)
    reason = "blocks of whole output chunks" if write_unit else "contiguous blocks"
    return Pass("apply", Grid(source.shape, block), cost(block), source.nbytes, sink.nbytes, reason)


def _fused_pass(
    source: ArrayInfo, sink: ArrayInfo, geometry: Geometry, resources: Resources, held: int
) -> Pass | None:
    cost = _apply_cost(source, sink, geometry)
    whole = (*geometry.aggregated, *_stream_axes(source, sink))
    segments = _kept_segments(geometry)
    unit = blocks.unit_shape(source, (sink.write_unit, segments, source.chunks), whole)
    if _nbytes(source, unit) > blocks.TARGET_BYTES:
        unit = blocks.unit_shape(source, (sink.write_unit, segments), whole)
    if cost(unit) > resources.memory - held:
        return None
    block = _fit_block(source, unit, cost, resources, held)
    return Pass(
        "fused",
        Grid(source.shape, block),
        cost(block),
        source.nbytes,
        sink.nbytes,
        "blocks whole along the aggregated axes",
    )


def _apply_cost(
    source: ArrayInfo, sink: ArrayInfo, geometry: Geometry
) -> Callable[[tuple[int, ...]], int]:
    def cost(block: tuple[int, ...]) -> int:
        groups = 3 * _group_bytes(geometry, block)
        return read_cost(source, block) + write_cost(sink, block) + TILE_BYTES + groups

    return cost


def _fit_block(
    source: ArrayInfo,
    unit: tuple[int, ...],
    cost: Callable[[tuple[int, ...]], int],
    resources: Resources,
    held: int,
) -> tuple[int, ...]:
    """Return a block that fits the budget, or one unit where not even that does."""
    available = resources.memory - held
    target = blocks.TARGET_BYTES
    block = blocks.grow(source, unit, target)
    while cost(block) > available and target > source.dtype.itemsize:
        target //= 2
        block = blocks.grow(source, unit, target)
    return block


def _plan(
    passes: tuple[Pass, ...],
    source: ArrayInfo,
    resources: Resources,
    held: int,
    kernel: str,
    reason: str,
    in_order: bool,
) -> Plan:
    dearest = max(p.block_memory for p in passes)
    if dearest > resources.memory - held:
        # The dearest of all passes, so that the budget in the hint is enough for each of them.
        raise _too_large(max(passes, key=lambda p: p.block_memory), source, resources, held)
    most_blocks = max(len(p.grid) for p in passes)
    workers = max(1, min(resources.workers, (resources.memory - held) // dearest, most_blocks))
    if in_order:
        # A pipe gives and takes its bytes in one order; a second worker could only wait.
        workers = 1
    return Plan(passes, int(workers), resources.memory, held, kernel, reason)


def _too_large(work: Pass, source: ArrayInfo, resources: Resources, held: int) -> PlanError:
    verb = "measure" if work.kind == "measure" else "normalize"
    block = "x".join(map(str, work.grid.block_shape))
    return PlanError(
        f"To {verb} one block of {block} {source.dtype} takes {_size(work.block_memory)} and the "
        f"statistics {_size(held)}, but the memory budget is {_size(resources.memory)}.",
        f"--memory {-(-(work.block_memory + held) // MIB)}MiB would do.",
    )


def _statistics_memory(groups: int) -> int:
    return groups * (2 * MOMENTS_BYTES + TABLE_BYTES)


def _group_bytes(geometry: Geometry, block: tuple[int, ...]) -> int:
    """Bytes of the moments (and tables) of the groups that one block touches."""
    groups = prod(-(-block[axis] // geometry.segments[axis]) for axis in geometry.kept)
    return groups * (MOMENTS_BYTES + TABLE_BYTES)


def _nbytes(info: ArrayInfo, block: tuple[int, ...]) -> int:
    return prod(block) * info.dtype.itemsize


def _kept_segments(geometry: Geometry) -> tuple[int, ...]:
    """Multiples that keep the segments of a divided axis whole; 1 along every other axis."""
    return tuple(
        geometry.segments[axis] if axis in geometry.kept else 1
        for axis in range(len(geometry.shape))
    )


def _stream_axes(*infos: ArrayInfo) -> tuple[int, ...]:
    """Axes that cannot be cut because elements come, or go, in the order of storage."""
    if any(info.storage == "stream" for info in infos):
        return tuple(range(1, infos[0].ndim))
    return ()


def _size(nbytes: int) -> str:
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
