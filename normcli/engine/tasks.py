"""What a task does with its blocks: read, compute, write, and return small moments.

Task functions are plain functions of picklable values, so that threads and worker processes run
the same code. Elements never leave a task.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from normcli.arrays.access import ArraySink, ArraySource, StoredPart
from normcli.arrays.buffers import BufferPool
from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.pair_moments import PairMoments
from normcli.domain.statistics import require_usable
from normcli.domain.transform import Transform, backward, forward
from normcli.engine.events import Progress
from normcli.engine.merge_tree import MergeTree
from normcli.engine.stopping import check_stop
from normcli.engine.tables import AffineTables, NormalizerTables, normalizer_of
from normcli.engine.walk import Run, Walk
from normcli.errors import DataPolicyError
from normcli.kernels.select import kernels


@dataclass(frozen=True)
class MeasureJob:
    """Everything that measuring tasks share.

    Attributes
    ----------
    c_order : bool
        Measure every block in C order, so that the order of storage changes no bit.
    buffers : BufferPool
        Memory that blocks are read into.
    """

    source: ArraySource
    geometry: Geometry
    walk: Walk
    kernel: str
    c_order: bool = False
    buffers: BufferPool = field(default_factory=BufferPool)


@dataclass(frozen=True)
class ApplyJob:
    """Everything that normalizing tasks share.

    Attributes
    ----------
    tables : NormalizerTables or None
        Known statistics; None measures each block, which then holds whole groups.
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
    moments : Moments or PairMoments
        The moments.
    """

    first: int
    level: int
    index: tuple[slice, ...]
    moments: Moments | PairMoments


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
    written : Moments or None
        Moments of all that was written, as one group.
    parts : tuple of StoredPart
        What was stored.
    """

    run: Run
    progress: Progress
    regions: tuple[Region, ...] = ()
    written: Moments | None = None
    parts: tuple[StoredPart, ...] = ()


def measure_run(job: MeasureJob, run: Run) -> RunResult:
    """Read the blocks of a run and return their moments, merged within each region."""
    compute = kernels(job.kernel)
    regions = []
    tree: MergeTree[Moments] = MergeTree(run.count)
    nbytes = 0
    index: tuple[slice, ...] = ()
    for position in range(run.first, run.first + run.count):
        check_stop()
        block = job.walk.block(position)
        with job.buffers.lend() as buffer:
            values = job.source.read(block, buffer)
            nbytes += values.nbytes
            if job.c_order:
                values = np.ascontiguousarray(values)
            moments = compute.measure(values, job.geometry, block.start)
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
    written: MergeTree[Moments] = MergeTree(run.count)
    parts: list[StoredPart] = []
    bytes_read = bytes_written = 0
    for position in range(run.first, run.first + run.count):
        check_stop()
        block = job.walk.block(position)
        index = job.geometry.region(block.start, block.stop)
        with job.buffers.lend() as buffer:
            values = job.source.read(block, buffer)
            bytes_read += values.nbytes
            if job.tables is None:
                moments = compute.measure(values, job.geometry, block.start)
                require_usable(moments, job.spec, values.dtype, job.source.name)
                statistics = normalizer_of(moments, job.spec, job.source.info.dtype)
                regions.append(Region(position, 0, index, moments))
            else:
                statistics = job.tables.region(index)
            affine = job.affine.region(job.geometry.scale_region(block.start, block.stop))
            transform: Transform = (backward if job.inverse else forward)(statistics, affine)
            # Always an array of its own, so that the buffer may take the next block.
            result = compute.transform(values, transform, job.geometry, block.start, job.dtype)
            del values
        parts += job.sink.write(job.sink_array, block, result)
        bytes_written += result.nbytes
        everything = Geometry(result.shape, (), (), result.shape)
        summary = compute.measure(result, everything, (0,) * result.ndim)
        if job.spec.nonfinite == "error" and summary.nonfinite:
            raise DataPolicyError(
                f"{job.source.name} holds NaN or infinite values: {int(summary.nonfinite)} in the "
                f"block at {list(block.start)}.",
                "--nonfinite omit lets them pass.",
            )
        written.add(position - run.first, 0, summary)
    return RunResult(
        run,
        Progress(run.count, bytes_read, bytes_written),
        tuple(regions),
        written.root,
        tuple(parts),
    )
