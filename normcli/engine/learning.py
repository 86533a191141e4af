"""What a task does to learn: read input and target, normalize, and return sums over their pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.arrays.buffers import BufferPool
from normcli.domain.affine import Affine
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.domain.norm_spec import NormSpec
from normcli.domain.normalizers import normalizer_of
from normcli.domain.pair_moments import PairMoments
from normcli.domain.transform import forward
from normcli.domain.usability import require_usable
from normcli.engine.events import Progress
from normcli.engine.measuring import Measurer
from normcli.engine.merge_tree import MergeTree
from normcli.engine.stopping import check_stop
from normcli.engine.tables import NormalizerTables
from normcli.engine.tasks import Region, RunResult
from normcli.engine.walk import Run, Walk
from normcli.errors import DataPolicyError
from normcli.kernels.numpy_pairs import measure_pairs
from normcli.kernels.select import kernels


@dataclass(frozen=True)
class LearnJob:
    """Everything that learning tasks share.

    Attributes
    ----------
    source, target : ArraySource
        Input and target, of the same shape.
    geometry : Geometry
        Axes of the normalization.
    cells : Geometry
        Axes of the sums.
    spec : NormSpec
        The formula.
    walk : Walk
        The blocks of both.
    kernel : str
        Which loops measure and normalize.
    tables : NormalizerTables or None
        Known statistics; None measures each block, which then holds whole groups.
    buffers : BufferPool
        Memory that blocks are read into.
    """

    source: ArraySource
    target: ArraySource
    geometry: Geometry
    cells: Geometry
    spec: NormSpec
    walk: Walk
    kernel: str
    tables: NormalizerTables | None
    buffers: BufferPool = field(default_factory=BufferPool)


def learn_run(job: LearnJob, run: Run) -> RunResult:
    """Read the blocks of a run and return their sums, merged within each region."""
    regions = []
    tree: MergeTree[PairMoments] = MergeTree(run.count)
    nbytes = 0
    index: tuple[slice, ...] = ()
    for position in range(run.first, run.first + run.count):
        check_stop()
        block = job.walk.block(position)
        with job.buffers.lend() as buffer, job.buffers.lend() as second:
            # In C order, so that the order of storage changes no bit.
            values = np.ascontiguousarray(job.source.read(block, buffer))
            target = np.ascontiguousarray(job.target.read(block, second))
            nbytes += values.nbytes + target.nbytes
            pairs = _pairs(job, block, values, target)
            del values, target
        index = job.cells.region(block.start, block.stop)
        if job.walk.ranks == 1:
            regions.append(Region(position, 0, index, pairs))
        else:
            tree.add(position - run.first, 0, pairs)
    if job.walk.ranks > 1:
        assert tree.root is not None
        regions.append(Region(run.first, run.level, index, tree.root))
    return RunResult(run, Progress(run.count, nbytes, 0), tuple(regions))


def _pairs(
    job: LearnJob,
    block: Block,
    values: np.ndarray,
    target: np.ndarray,
) -> PairMoments:
    compute = kernels(job.kernel)
    start, stop = block.start, block.stop
    index = job.geometry.region(start, stop)
    if job.tables is None:
        moments = Measurer.of(job.spec, job.geometry, compute).moments(job.source, values, block)
        require_usable(moments, job.spec, values.dtype, job.source.name)
        statistics = normalizer_of(moments, job.spec, job.source.info.dtype)
    else:
        statistics = job.tables.region(index)
    scale_region = job.geometry.scale_region(start, stop)
    scale_shape = tuple(s.stop - s.start for s in scale_region)
    steps = forward(statistics, Affine().after(job.spec.offset, scale_shape))
    normalized = compute.transform(values, steps, job.geometry, start, np.dtype(np.float64))
    boxes = _paired(job, block)
    if boxes is None:
        _require_finite(job, values, target, start)
        return measure_pairs(normalized, target, job.cells, start)
    region = job.cells.region(start, stop)
    whole = PairMoments.identity(tuple(s.stop - s.start for s in region))
    for box in boxes:
        first = tuple(a + s.start for a, s in zip(start, box, strict=True))
        last = tuple(a + s.stop for a, s in zip(start, box, strict=True))
        _require_finite(job, values[box], target[box], first)
        pairs = measure_pairs(
            normalized[box].copy(order="C"), target[box].copy(order="C"), job.cells, first
        )
        place = tuple(
            slice(own.start - s.start, own.stop - s.start)
            for own, s in zip(job.cells.region(first, last), region, strict=True)
        )
        whole.store(place, whole[place].merge(pairs))
    return whole


def _paired(job: LearnJob, block: Block) -> list[tuple[slice, ...]] | None:
    """Return the boxes of a block that are stored in both arrays; None for all of it."""
    every = [tuple(slice(0, n) for n in block.shape)]
    ours, theirs = (array.stored_parts(block) for array in (job.source, job.target))
    if ours is None and theirs is None:
        return None
    found = []
    for one in every if ours is None else ours:
        for other in every if theirs is None else theirs:
            both = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(one, other, strict=True)
            )
            if all(s.start < s.stop for s in both):
                found.append(both)
    return found


def _require_finite(
    job: LearnJob, values: np.ndarray, target: np.ndarray, start: tuple[int, ...]
) -> None:
    """Refuse NaN and infinities where the policy is to end the run at the first."""
    if job.spec.nonfinite != "error":
        return
    for name, elements in ((job.source.name, values), (job.target.name, target)):
        bad = int(np.count_nonzero(~np.isfinite(elements.astype(np.float64, copy=False))))
        if bad:
            raise DataPolicyError(
                f"{name} holds {bad} NaN or infinite values in the block at {list(start)}.",
                "--nonfinite omit leaves them out.",
            )
