"""What a task does with its blocks: read, compute, write, and return small moments.

Task functions are plain functions of picklable values, so that threads and worker processes run
the same code. Elements never leave a task.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from normcli.arrays.access import ArraySink, ArraySource, StoredPart
from normcli.arrays.buffers import BufferPool
from normcli.domain.affine import Affine
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.domain.losses import NO_LOSSES, Losses
from normcli.domain.moment_kinds import Found
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.normalizers import normalizer_of
from normcli.domain.pair_moments import PairMoments
from normcli.domain.transform import Normalizer, Transform, backward, forward
from normcli.domain.usability import require_usable
from normcli.domain.wide_moments import leaves_float64
from normcli.engine.events import Progress
from normcli.engine.measuring import Measurer
from normcli.engine.merge_tree import MergeTree
from normcli.engine.stopping import check_stop
from normcli.engine.tables import AffineTables, NormalizerTables
from normcli.engine.walk import Run, Walk
from normcli.errors import DataPolicyError
from normcli.kernels.normalizing import Fold, Recipe
from normcli.kernels.rounding import overflows
from normcli.kernels.select import Kernels, kernels


@dataclass(frozen=True)
class MeasureJob:
    """Everything that measuring tasks share.

    Attributes
    ----------
    merged : bool
        Hand over exact moments of every region, because they are merged further or kept.
    spec : NormSpec or None
        The method, which may need more than moments; None for moments alone.
    buffers : BufferPool
        Memory that blocks are read into.
    """

    source: ArraySource
    geometry: Geometry
    walk: Walk
    kernel: str
    merged: bool = False
    spec: NormSpec | None = None
    buffers: BufferPool = field(default_factory=BufferPool)


@dataclass(frozen=True)
class ApplyJob:
    """Everything that normalizing tasks share.

    Attributes
    ----------
    tables : NormalizerTables or None
        Known statistics; None measures each block, which then holds whole groups.
    saturate : bool
        Write the nearest value that the output's type has where it cannot hold a result, and
        count these; otherwise the first block with any is refused.
    buffers : BufferPool
        Memory that blocks are read into.
    """

    source: ArraySource
    sink: ArraySink
    sink_array: str
    dtype: np.dtype
    geometry: Geometry
    spec: NormSpec
    walk: Walk
    kernel: str
    affine: AffineTables
    tables: NormalizerTables | None
    inverse: bool = False
    saturate: bool = False
    buffers: BufferPool = field(default_factory=BufferPool)


@dataclass(frozen=True)
class Region:
    """Moments of the groups (or sums of the cells) in one part of the statistics.

    Attributes
    ----------
    first : int
        Position of the first block behind it, in the walk.
    level : int
        Level of the merge-tree node that it is.
    index : tuple of slice
        Its place in the statistics.
    moments : Moments, sums to be merged further, or PairMoments
        The moments; rounded already where the region is one block, whole in itself, and nothing
        is merged with it.
    """

    first: int
    level: int
    index: tuple[slice, ...]
    moments: Found | PairMoments


@dataclass(frozen=True)
class RunResult:
    """What a task returns.

    Attributes
    ----------
    run : Run
        The run it did.
    progress : Progress
        For the screen.
    regions : tuple of Region
        Moments measured.
    written : ExactMoments or None
        Moments of all that was written, as one group.
    parts : tuple of StoredPart
        What was stored.
    losses : Losses
        Results that the output's type could not hold.
    """

    run: Run
    progress: Progress
    regions: tuple[Region, ...] = ()
    written: ExactMoments | None = None
    parts: tuple[StoredPart, ...] = ()
    losses: Losses = NO_LOSSES


def measure_run(job: MeasureJob, run: Run) -> RunResult:
    """Read the blocks of a run and return their moments, merged within each region."""
    measurer = Measurer.of(job.spec, job.geometry, kernels(job.kernel))
    regions = []
    tree: MergeTree[Any] = MergeTree(run.count)
    whole = job.walk.ranks == 1 and not job.merged
    nbytes = 0
    index: tuple[slice, ...] = ()
    for position in range(run.first, run.first + run.count):
        check_stop()
        block = job.walk.block(position)
        with job.buffers.lend() as buffer:
            values = job.source.read(block, buffer)
            nbytes += values.nbytes
            measure = measurer.moments if whole else measurer.sums
            moments: Any = measure(job.source, values, block)
            del values
        index = job.geometry.region(block.start, block.stop)
        if job.walk.ranks == 1:
            regions.append(Region(position, 0, index, moments))
        else:
            tree.add(position - run.first, 0, moments)
    if job.walk.ranks > 1:
        assert tree.root is not None
        regions.append(Region(run.first, run.level, index, tree.root))
    return RunResult(run, Progress(run.count, nbytes, 0), tuple(regions))


def apply_run(job: ApplyJob, run: Run) -> RunResult:
    """Read, normalize and write the blocks of a run."""
    compute = kernels(job.kernel)
    regions = []
    written: MergeTree[ExactMoments] = MergeTree(run.count)
    parts: list[StoredPart] = []
    losses = Losses()
    bytes_read = bytes_written = 0
    for position in range(run.first, run.first + run.count):
        check_stop()
        block = job.walk.block(position)
        index = job.geometry.region(block.start, block.stop)
        lost: list[Losses] = []
        with job.buffers.lend() as buffer:
            values = job.source.read(block, buffer)
            bytes_read += values.nbytes
            affine = job.affine.region(job.geometry.scale_region(block.start, block.stop))
            # Always an array of its own, so that the buffer may take the next block.
            if job.tables is None:
                moments, result = _by_own_statistics(compute, job, values, affine, block)
                regions.append(Region(position, 0, index, moments))
            else:
                statistics = job.tables.region(index)
                transform: Transform = (backward if job.inverse else forward)(statistics, affine)
                place = (job.geometry, block.start, job.dtype)
                result = compute.transform(values, transform, *place, lost)
            everything = Geometry(result.shape, (), (), result.shape)
            summary = compute.measure(result, everything, (0,) * result.ndim)
            if summary.nonfinite:
                lost.append(overflows(values, result))
            del values
        losses += _allowed(job, block, sum(lost, Losses()), int(summary.nonfinite))
        parts += job.sink.write(job.sink_array, block, result)
        bytes_written += result.nbytes
        written.add(position - run.first, 0, summary)
    return RunResult(
        run,
        Progress(run.count, bytes_read, bytes_written),
        tuple(regions),
        written.root,
        tuple(parts),
        losses,
    )


def _allowed(job: ApplyJob, block: Block, losses: Losses, nonfinite: int) -> Losses:
    """Return what was lost in a block, where the policies of the run allow it.

    Raises
    ------
    DataPolicyError
        When they do not.
    """
    if losses and not job.saturate:
        raise DataPolicyError(
            f"{job.source.name}: the block at {list(block.start)} has {losses.words(job.dtype)}.",
            "A wider --dtype holds them; --overflow saturate writes the nearest values, and counts "
            "them.",
        )
    if job.spec.nonfinite == "error" and nonfinite > losses.overflowed:
        raise DataPolicyError(
            f"{job.source.name} holds NaN or infinite values: {nonfinite} in the block at "
            f"{list(block.start)}.",
            "--nonfinite omit lets them pass.",
        )
    return losses


def _by_own_statistics(
    compute: Kernels, job: ApplyJob, values: np.ndarray, affine: Affine, block: Block
) -> tuple[Moments, np.ndarray]:
    """Return the moments of a block of whole groups, and the block normalized by them."""
    fold = partial(_fold, job, values.dtype)
    if job.source.stored_parts(block) is None:
        one_walk = partial(_fold_plain, fold, job.spec.method)
        recipe = Recipe(job.spec, job.geometry, affine, job.source.info.dtype, job.dtype, one_walk)
        with suppress(_Beyond):
            found = compute.normalize(values, recipe, block.start)
            if found is not None:
                return found
    moments = Measurer.of(job.spec, job.geometry, compute).moments(job.source, values, block)
    transform = forward(fold(moments), affine)
    return moments, compute.transform(values, transform, job.geometry, block.start, job.dtype)


class _Beyond(Exception):
    """Squares of a block leave float64: it takes its exact sums, which one walk does not keep."""


def _fold_plain(fold: Fold, method: str, moments: Moments) -> Normalizer:
    if np.any(leaves_float64(moments, method)):
        raise _Beyond
    return fold(moments)


def _fold(job: ApplyJob, dtype: np.dtype, moments: Moments) -> Normalizer:
    """Return what groups are normalized with, where their moments allow it."""
    require_usable(moments, job.spec, dtype, job.source.name)
    return normalizer_of(moments, job.spec, job.source.info.dtype)
