"""Runs the passes of a plan and puts their results together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.engine.collectors import Collector
from normcli.engine.events import Observer
from normcli.engine.merge_tree import MergeTree
from normcli.engine.schedulers import Scheduler, Task
from normcli.engine.tasks import ApplyJob, MeasureJob, RunResult, apply_run, measure_run
from normcli.engine.walk import Walk
from normcli.planning.plan import Pass, Plan


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
    """

    plan: Plan
    scheduler: Scheduler
    observer: Observer

    def measure(self, work: Pass, job: MeasureJob, collector: Collector) -> None:
        """Read every block once and hand the moments of each region to `collector`."""
        regions = RegionTrees(job.walk, collector)

        def consume(result: RunResult) -> None:
            regions.add(result)
            self.observer.advanced(result.progress)

        self._walk(work, measure_run, job, job.walk, consume)

    def apply(self, work: Pass, job: ApplyJob, collector: Collector | None = None) -> Moments:
        """Normalize every block and return the moments of all that was written, as one group.

        Moments measured on the way go to `collector`.
        """
        runs: MergeTree[ExactMoments] = MergeTree(job.walk.run_count)
        regions = RegionTrees(job.walk, collector) if collector is not None else None

        def consume(result: RunResult) -> None:
            assert result.written is not None
            runs.add(result.run.number, 0, result.written)
            if regions is not None:
                regions.add(result)
            self.observer.advanced(result.progress)

        self._walk(work, apply_run, job, job.walk, consume)
        assert runs.root is not None
        return runs.root.finish()

    def _walk(
        self,
        work: Pass,
        task: Task,
        job: Any,
        walk: Walk,
        consume: Callable[[RunResult], None],
    ) -> None:
        begin = time.perf_counter()
        self.observer.started(work, self.plan.passes.index(work) + 1, len(self.plan.passes))
        try:
            self.scheduler.execute(task, job, walk.runs(), self.plan.workers, consume)
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
        self._trees: dict[int, MergeTree[ExactMoments]] = {}

    def add(self, result: RunResult) -> None:
        """Take the moments of one task."""
        for part in result.regions:
            region, rank = divmod(part.first, self._walk.ranks)
            if self._walk.ranks == 1:
                self._collector.put(region, part.index, part.moments)
                continue
            assert isinstance(part.moments, ExactMoments)
            tree = self._trees.setdefault(region, MergeTree(self._walk.ranks))
            tree.add(rank, part.level, part.moments)
            if tree.root is not None:
                del self._trees[region]
                self._collector.put(region, part.index, tree.root)
