"""Runs the passes of a plan and puts their results together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from normcli.arrays.access import StoredPart
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.losses import Losses
from normcli.domain.moments import Moments
from normcli.engine.collectors import Collector
from normcli.engine.done import Done, Sums
from normcli.engine.events import Observer, Progress
from normcli.engine.journal import Journal
from normcli.engine.learning import LearnJob, learn_run
from normcli.engine.merge_tree import MergeTree
from normcli.engine.schedulers import Scheduler, Task
from normcli.engine.tasks import ApplyJob, MeasureJob, RunResult, apply_run, measure_run
from normcli.engine.walk import Walk
from normcli.planning.plan import Pass, Plan


@dataclass(frozen=True)
class Written:
    """What a pass that applies has written.

    Attributes
    ----------
    moments : Moments
        Of everything that was written, as one group.
    parts : list of StoredPart
        What it left in storage, in no order.
    losses : Losses
        Results that the type of the output could not hold.
    """

    moments: Moments
    parts: list[StoredPart]
    losses: Losses


@dataclass(frozen=True)
class Runner:
    """Carries out the passes of one plan.

    Attributes
    ----------
    plan : Plan
        What to do.
    scheduler : Scheduler
        Who does it.
    observer : Observer
        Who is told.
    journal : Journal or None
        Knows what an interrupted run did, and is told what is done; None where nothing can be
        continued (a pipe, or an outcome that is not written).
    """

    plan: Plan
    scheduler: Scheduler
    observer: Observer
    journal: Journal | None = None

    def measure(self, work: Pass, job: MeasureJob, collector: Collector) -> None:
        """Read every block once and hand the moments of each region to `collector`."""
        regions = RegionTrees(job.walk, collector)

        def consume(result: RunResult) -> Done:
            return regions.add(result)

        self._walk(work, measure_run, job, job.walk, consume, regions.restore)

    def learn(self, work: Pass, job: LearnJob, collector: Collector) -> None:
        """Read every block of input and target once and hand their sums to `collector`."""
        regions = RegionTrees(job.walk, collector)

        def consume(result: RunResult) -> Done:
            return regions.add(result)

        self._walk(work, learn_run, job, job.walk, consume, regions.restore)

    def apply(self, work: Pass, job: ApplyJob, collector: Collector | None = None) -> Written:
        """Normalize every block and return what was written.

        Moments measured on the way go to `collector`.
        """
        runs: MergeTree[ExactMoments] = MergeTree(job.walk.run_count)
        regions = RegionTrees(job.walk, collector) if collector is not None else None
        parts: list[StoredPart] = []
        losses: list[Losses] = []

        def consume(result: RunResult) -> Done:
            assert result.written is not None
            losses.append(result.losses)
            runs.add(result.run.number, 0, result.written)
            done = Done() if regions is None else regions.add(result)
            done.written[result.run.number] = result.written
            done.losses = result.losses
            done.parts += result.parts
            parts.extend(result.parts)
            return done

        def restore(done: Done) -> None:
            for number, written in done.written.items():
                runs.add(number, 0, written)
            parts.extend(done.parts)
            losses.append(done.losses)
            if regions is not None:
                regions.restore(done)

        self._walk(work, apply_run, job, job.walk, consume, restore)
        assert runs.root is not None
        return Written(runs.root.finish(), parts, sum(losses, Losses()))

    def _walk(
        self,
        work: Pass,
        task: Task,
        job: Any,
        walk: Walk,
        consume: Callable[[RunResult], Done],
        restore: Callable[[Done], None],
    ) -> None:
        begin = time.perf_counter()
        number = self.plan.passes.index(work)
        earlier = self.journal.take(number) if self.journal is not None else Done()
        self.observer.started(work, number + 1, len(self.plan.passes))

        def take(result: RunResult) -> None:
            done = consume(result)
            if self.journal is not None:
                done.runs.add(result.run.number)
                done.blocks += result.run.count
                self.journal.add(number, done)
            self.observer.advanced(result.progress)

        try:
            if earlier:
                restore(earlier)
                self.observer.advanced(_progress_of(earlier, walk, work))
            runs = (run for run in walk.runs() if run.number not in earlier.runs)
            self.scheduler.execute(task, job, runs, self.plan.workers, take)
            if self.journal is not None:
                self.journal.flush()
        except BaseException:
            self.observer.failed()
            raise
        finally:
            job.buffers.clear()
        self.observer.finished(time.perf_counter() - begin)


class RegionTrees:
    """Merges what tasks return, region by region, and passes finished regions on."""

    def __init__(self, walk: Walk, collector: Collector) -> None:
        self._walk = walk
        self._collector = collector
        self._trees: dict[int, MergeTree[Any]] = {}

    def add(self, result: RunResult) -> Done:
        """Take the moments of one task, and return what a journal should keep of them."""
        done = Done()
        for part in result.regions:
            region, rank = divmod(part.first, self._walk.ranks)
            self._add(done, region, rank, part.level, part.index, part.moments)
        return done

    def restore(self, done: Done) -> None:
        """Take what an interrupted run left."""
        self._collector.restore(done.stored, done.tally)
        for (region, rank, level), (index, moments) in done.largest_nodes().items():
            self._add(Done(), region, rank, level, index, moments)

    def _add(
        self,
        done: Done,
        region: int,
        rank: int,
        level: int,
        index: tuple[slice, ...],
        moments: Sums,
    ) -> None:
        tree = self._trees.setdefault(region, MergeTree(self._walk.ranks))
        first, level, moments = tree.add(rank, level, moments)
        if tree.root is None:
            done.nodes[region, first, level] = index, moments
            return
        del self._trees[region]
        stored = self._collector.put(region, index, moments)
        if stored is None:
            done.nodes[region, first, level] = index, moments
        else:
            done.stored.add(region)
            done.stored_parts += stored[0]
            done.tally += stored[1]


def _progress_of(done: Done, walk: Walk, work: Pass) -> Progress:
    """Return what an interrupted run did, in the words of the screen."""
    runs = [run for run in walk.runs() if run.number in done.runs]
    positions = (p for run in runs for p in range(run.first, run.first + run.count))
    elements = sum(walk.block(position).size for position in positions)
    share = elements / max(1, prod(walk.grid.shape))
    return Progress(
        sum(run.count for run in runs),
        int(work.bytes_read * share),
        int(work.bytes_written * share),
        resumed=True,
    )
