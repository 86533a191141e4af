"""make_plan: from arrays, axes and a budget to passes over blocks.

The blocks depend on the arrays and, only where they would not fit otherwise, on the budget. They
never depend on the number of workers, so neither do the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.errors import PlanError
from normcli.planning.memory import (
    KEPT_COPIES,
    MIB,
    MOMENTS_BYTES,
    PLAIN,
    TABLE_BYTES,
    WAITING_COPIES,
    MethodCost,
    cache_cost,
    exact_bytes,
    parts_cost,
)
from normcli.planning.passes import PassPlanner
from normcli.planning.plan import Pass, Plan

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
    sums_held: int = 0,
    method: MethodCost = PLAIN,
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
    sums_held : int
        Groups whose exact sums stay in memory.
    method : MethodCost
        What the method takes beside moments.

    Raises
    ------
    PlanError
        When one block does not fit the budget.
    """
    held = _statistics_memory(groups_held, method) + cache_cost(source)
    held += _sums_memory(sums_held, source, method)
    held += _kept_sketches(geometry, resources, method)
    passes = PassPlanner(source, geometry, resources.memory - held, method=method)
    if moving_axis is not None:
        measure = passes.moving(moving_axis)
        reason = "one pass: batches are measured whole and folded in order"
    else:
        measure = passes.measure()
        reason = "one pass: moments of blocks are merged"
    in_order = source.storage == "stream"
    return _plan((measure,), source, resources, held, kernel, reason, in_order)


def plan_part(
    source: ArrayInfo,
    geometry: Geometry,
    resources: Resources,
    kernel: str,
    groups_held: int,
    boxes: Sequence[Block],
    method: MethodCost = PLAIN,
) -> Plan:
    """Return the plan that measures some boxes of an array, in one pass each.

    The exact sums of all groups stay in memory.

    Parameters
    ----------
    source, geometry, resources, kernel, groups_held, method
        As for `plan_fit`.
    boxes : sequence of Block
        The boxes; without any there is nothing to do.

    Raises
    ------
    PlanError
        When one block does not fit the budget.
    """
    held = _statistics_memory(groups_held, method) + _sums_memory(groups_held, source, method)
    held += _kept_sketches(geometry, resources, method)
    passes = []
    for box in boxes:
        info = replace(source, shape=box.shape)
        work = PassPlanner(info, geometry, resources.memory - held, method=method).measure()
        passes.append(replace(work, grid=replace(work.grid, origin=box.start)))
    if not passes:
        return Plan((), 1, resources.memory, held, kernel, "nothing: this part holds no block")
    words = "one pass" if len(passes) == 1 else f"{len(passes)} boxes make up this part"
    return _plan(tuple(passes), source, resources, held, kernel, words, in_order=False)


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
    method: MethodCost = PLAIN,
    may_keep: bool = False,
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
    method : MethodCost
        What the method takes beside moments.
    may_keep : bool
        Whether the tasks share their memory, so that chunks which fit the budget whole may be
        decoded once for two passes.

    Raises
    ------
    PlanError
        When one block does not fit the budget, or a stream would have to be read twice.
    """
    held = affine_bytes + _statistics_memory(groups_held, method)
    held += cache_cost(source) + parts_cost(sink)
    in_order = "stream" in (source.storage, sink.storage)
    available = resources.memory - held
    writing = PassPlanner(source, geometry, available, sink, method)
    if known:
        only = (writing.apply(),)
        reason = "one pass: the statistics are given"
        return _plan(only, source, resources, held, kernel, reason, in_order)
    if not per_dataset:
        fused = writing.fused()
        if fused is not None:
            reason = "one pass: each block holds whole groups, is measured and normalized at once"
            return _plan((fused,), source, resources, held, kernel, reason, in_order)
    if per_dataset:
        why, remedy = "the statistics belong to the whole dataset", ""
    else:
        group = _size(geometry.group_size * source.dtype.itemsize)
        why, remedy = f"one group of {group} outgrows a block", ", or give more --memory"
    if source.storage == "stream":
        raise PlanError(
            f"Two passes are needed, because {why}, but a pipe can be read only once.",
            f"Fit first and pass --stats, or write the input to a file{remedy}.",
        )
    passes = (
        PassPlanner(source, geometry, available, method=method).measure(),
        writing.apply(),
    )
    plan = _plan(passes, source, resources, held, kernel, f"two passes: {why}", in_order)
    same = passes[0].grid == passes[1].grid
    room = resources.memory - plan.peak_memory
    if may_keep and source.chunks and same and source.nbytes <= room:
        return replace(plan, kept_memory=source.nbytes)
    return plan


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
    also = "statistics and kept chunks" if cache_cost(source) else "statistics"
    return PlanError(
        f"To {verb} one block of {block} {source.dtype} takes {_size(work.block_memory)} and the "
        f"{also} {_size(held)}, but the memory budget is {_size(resources.memory)}.",
        f"--memory {-(-(work.block_memory + held) // MIB)}MiB would do.",
    )


def _statistics_memory(groups: int, method: MethodCost) -> int:
    return groups * (2 * (MOMENTS_BYTES + method.arrays) + TABLE_BYTES)


def _sums_memory(groups: int, source: ArrayInfo, method: MethodCost) -> int:
    return groups * KEPT_COPIES * (exact_bytes(source.dtype) + method.sums)


def _kept_sketches(geometry: Geometry, resources: Resources, method: MethodCost) -> int:
    """Return the bytes of sketches of all groups, where they are kept to be merged.

    Raises
    ------
    PlanError
        When they alone are more than the budget.
    """
    if not method.merged:
        return 0
    groups = geometry.group_count
    kept = groups * method.sketch * WAITING_COPIES
    if kept > resources.memory:
        raise PlanError(
            f"Quantiles of {groups} groups need {_size(kept)}: a sketch takes up to "
            f"{_size(method.sketch)}, and {WAITING_COPIES} of a group wait to be merged; the "
            f"memory budget is {_size(resources.memory)}.",
            "Aggregate more axes, or give more --memory; --method minmax and zscore need no "
            "sketches.",
        )
    return kept


def _size(nbytes: int) -> str:
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
