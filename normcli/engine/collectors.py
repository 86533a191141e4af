"""Where the sums of finished regions go: into memory, into a container, or into an average."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from normcli.arrays.access import ArraySink, StoredPart
from normcli.domain.batch_estimate import InstanceAverage
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.grid import Block
from normcli.domain.moment_kinds import Found, kind_of, no_sums, plain, rest_names, stored, widened
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingStatistics
from normcli.domain.norm_spec import NormSpec
from normcli.domain.pair_moments import PairMoments
from normcli.domain.usability import require_usable
from normcli.domain.wide_moments import WideMoments, completed
from normcli.engine.report import Tally, tally
from normcli.engine.walk import Walk

# The parts of a container that hold moments, and the counts over their groups.
Stored = tuple[tuple[StoredPart, ...], Tally]

# What is collected: Moments, or PairMoments.
Sums = TypeVar("Sums", contravariant=True)


class Collector(Protocol[Sums]):
    """Takes the sums of each region once; calls come from one thread, in any order."""

    def put(self, region: int, index: tuple[slice, ...], moments: Sums) -> Stored | None:
        """Take region number `region` of the walk, whose place in the statistics is `index`.

        Returns
        -------
        Stored or None
            Where the moments were stored; None where they are in memory alone.
        """
        ...

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Hear which regions an interrupted run stored, and the counts over them."""
        ...


class HeldMoments:
    """Keeps the moments of all groups in memory.

    Parameters
    ----------
    shape : tuple of int
        Extents of the statistics.
    method : str
        Decides what they hold beside moments.
    dtype : numpy.dtype, optional
        Type of the data, of which more is kept than float64 holds, where that is needed.
    """

    def __init__(
        self, shape: tuple[int, ...], method: str = "zscore", dtype: np.dtype | None = None
    ) -> None:
        self.moments = kind_of(method).identity(shape)
        self._method, self._dtype = method, dtype

    def put(self, region: int, index: tuple[slice, ...], moments: Found) -> None:
        """Store the region."""
        found = moments.finish()
        if self._dtype is not None and isinstance(moments, ExactMoments):
            found = completed(found, moments, self._method, self._dtype)
        self.moments = stored(self.moments, index, found)

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Do nothing: no region was stored."""


class HeldPairs:
    """Keeps the sums over pairs of all cells in memory.

    Parameters
    ----------
    shape : tuple of int
        Extents of the cells.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pairs = PairMoments.identity(shape)

    def put(self, region: int, index: tuple[slice, ...], moments: PairMoments) -> None:
        """Store the region."""
        self.pairs.store(index, moments)

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Do nothing: no region was stored."""


class HeldSums:
    """Keeps the exact sums of all groups in memory, over any number of passes.

    Parameters
    ----------
    shape : tuple of int
        Extents of the statistics.
    spec : NormSpec, optional
        The method, which may need more than moments.
    dtype : numpy.dtype, optional
        Type of the data, which may need more for a method.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        spec: NormSpec | None = None,
        dtype: np.dtype | None = None,
    ) -> None:
        self.sums: Any = no_sums(shape)
        if spec is not None:
            levels = None if spec.quantiles is None else spec.levels
            self.sums = no_sums(shape, levels, spec.p, spec.method, dtype)

    def put(self, region: int, index: tuple[slice, ...], moments: Found) -> None:
        """Add the region to its groups."""
        assert not isinstance(moments, Moments), "what is added to is not rounded before"
        # An empty index would make scalars of arrays without axes.
        where = index or ...
        self.sums = self.sums.store(where, self.sums[where].merge(moments))

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Do nothing: no region was stored."""


class StoredMoments:
    """Writes the moments of each region into a container, where they may outgrow memory.

    Parameters
    ----------
    sink : ArraySink
        Container with the arrays of `array_names`: those of the moments, and others for readers.
    spec : NormSpec
        Divisor of the variance.
    dtype : numpy.dtype
        Type of the data.
    where : str
        Name of the input, for messages.

    Attributes
    ----------
    tally : Tally
        Counts over the groups seen so far.
    """

    def __init__(self, sink: ArraySink, spec: NormSpec, dtype: np.dtype, where: str) -> None:
        self.sink = sink
        self._where = where
        self.tally = Tally()
        self._spec = spec
        self._dtype = dtype

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Count the groups that are stored already."""
        self.tally += counts

    def put(self, region: int, index: tuple[slice, ...], moments: Found) -> Stored:
        """Write the region.

        Raises
        ------
        DataPolicyError
            When its moments cannot be normalized with.
        """
        found = moments.finish()
        if isinstance(moments, ExactMoments):
            found = completed(found, moments, self._spec.method, self._dtype)
        if isinstance(found, WideMoments) and found.scaled:
            found = plain(found)  # Refused below: stored by block, nothing says how m2 is scaled.
        require_usable(found, self._spec, self._dtype, self._where)
        block = Block(region, tuple(s.start for s in index), tuple(s.stop for s in index))
        parts: list[StoredPart] = []
        for name in kind_of(self._spec.method).names():
            parts += self.sink.write(name, block, getattr(found, name))
        for name in rest_names(self._spec.method, self._dtype):
            parts += self.sink.write(name, block, getattr(widened(found), name))
        for name, values in found.derived(self._spec.ddof).items():
            parts += self.sink.write(name, block, values)
        counts = tally(found, self._spec, self._dtype, index)
        self.tally += counts
        return tuple(parts), counts


class MovingFold:
    """Folds batches into moving statistics in dataset order, whatever the order of arrival.

    Parameters
    ----------
    start : MovingStatistics
        What is continued.
    walk : Walk
        Regions with the batch axis as the slowest.
    batch : int
        Position of the batch axis among the kept axes, in ascending order.
    shape : tuple of int
        Extents of the statistics of all segments.
    segment : int
        Observations in one segment; batches consist of whole segments.
    observations : int
        Extent of the batch axis.
    nonfinite : str
        What NaN does.
    method : str
        Decides which squares are needed.
    dtype : numpy.dtype, optional
        Type of the data, of which more is kept than float64 holds, where that is needed.
    """

    def __init__(
        self,
        start: MovingStatistics,
        walk: Walk,
        batch: int,
        shape: tuple[int, ...],
        segment: int,
        observations: int,
        nonfinite: str,
        method: str = "zscore",
        dtype: np.dtype | None = None,
    ) -> None:
        self.moving = start
        self._method, self._dtype = method, dtype
        self._walk = walk
        self._batch = batch
        self._shape = shape
        self._nonfinite = nonfinite
        self._pooled: ExactMoments | None = None
        self._lengths = _segments_of_batches(start.rule.batch_sizes, segment, observations)
        self._early: dict[int, tuple[tuple[slice, ...], ExactMoments]] = {}
        self._next_region = 0
        self._closed = 0
        self._slab: ExactMoments | None = None
        self._open: ExactMoments | None = None
        self._average: InstanceAverage | None = None
        self._opened = 0

    @property
    def pooled(self) -> Moments:
        """Moments of everything, once all regions have been put."""
        return self.sums.finish()

    @property
    def sums(self) -> ExactMoments:
        """Exact sums of everything, once all regions have been put."""
        assert self._pooled is not None
        return self._pooled

    def restore(self, regions: set[int], counts: Tally) -> None:
        """Do nothing: no region was stored."""

    def put(self, region: int, index: tuple[slice, ...], moments: Found) -> None:
        """Take a region; fold as far as the order allows."""
        assert isinstance(moments, ExactMoments), "batches are folded before they are rounded"
        self._early[region] = (index, moments)
        in_slab = self._walk.regions // self._walk.grid.counts[self._walk.kept[0]]
        while self._next_region in self._early:
            index, moments = self._early.pop(self._next_region)
            self._next_region += 1
            self._place(index, moments)
            if self._next_region % in_slab == 0:
                self._fold_slab()

    def _rounded(self, sums: ExactMoments) -> Moments:
        found = sums.finish()
        if self._dtype is None:
            return found
        return completed(found, sums, self._method, self._dtype)

    def _place(self, index: tuple[slice, ...], moments: ExactMoments) -> None:
        length = index[self._batch].stop - index[self._batch].start
        if self._slab is None:
            shape = list(self._shape)
            shape[self._batch] = length
            self._slab = ExactMoments.identity(tuple(shape))
        inside = list(index)
        inside[self._batch] = slice(0, length)
        self._slab = self._slab.store(tuple(inside), moments)

    def _fold_slab(self) -> None:
        assert self._slab is not None
        length = self._slab.shape[self._batch]
        before = (slice(None),) * self._batch
        done = 0
        while done < length:
            taken = min(length - done, self._lengths[self._closed] - self._opened)
            segments = self._slab[(*before, slice(done, done + taken))]
            if self.moving.rule.instances:
                self._average = self._average or InstanceAverage()
                found = self.moving.estimate_of(self._rounded(segments), self._nonfinite)
                self._average.add(found, self._batch)
            union = segments.union(self._batch)
            self._open = union if self._open is None else self._open.merge(union)
            self._opened += taken
            done += taken
            if self._opened == self._lengths[self._closed]:
                self._close_batch()
        self._slab = None

    def _close_batch(self) -> None:
        assert self._open is not None
        if self._average is not None:
            self.moving = self.moving.fold_estimate(self._average.estimate(), self._nonfinite)
        else:
            self.moving = self.moving.fold(self._rounded(self._open), self._nonfinite)
        self._pooled = self._open if self._pooled is None else self._pooled.merge(self._open)
        self._open, self._average = None, None
        self._opened = 0
        self._closed += 1


def _segments_of_batches(sizes: tuple[int, ...], segment: int, observations: int) -> list[int]:
    """Return how many segments each batch holds; the last size repeats, the last batch may end
    early.
    """
    lengths: list[int] = []
    seen = 0
    while seen < observations:
        size = sizes[min(len(lengths), len(sizes) - 1)]
        size = min(size, observations - seen)
        lengths.append(-(-size // segment))
        seen += size
    return lengths
