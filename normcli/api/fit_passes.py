"""A fit carried out: its pass over the input, and the statistics that come of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from normcli.api.continuing import RunPlace
from normcli.api.fit_setup import FitSetup
from normcli.api.moving import moving_start
from normcli.api.parts import measure_part
from normcli.api.preparing import (
    provenance,
)
from normcli.api.sidecars import StoredSidecar
from normcli.api.updating import extended
from normcli.api.warnings import warn_of
from normcli.bundles.statistics_file import draft_statistics
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moment_kinds import Unrounded, plain_sums
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.part import Part
from normcli.domain.statistics import SourceDescription, Statistics, added
from normcli.domain.usability import require_moving_usable, require_usable
from normcli.engine.collectors import HeldMoments, HeldSums, MovingFold
from normcli.engine.measuring import Measurer
from normcli.engine.report import Tally, tally
from normcli.engine.run import Runner
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.kernels.select import kernels
from normcli.publishing import Draft

Drafts = tuple[tuple[Path, Path], ...]


class FitPasses:
    """Carries out what was settled.

    Parameters
    ----------
    setup : FitSetup
        What was settled.
    """

    def __init__(self, setup: FitSetup) -> None:
        self.setup = setup

    def run(
        self, runner: Runner, place: RunPlace | None, stack: ExitStack
    ) -> tuple[Statistics | None, Tally, Drafts]:
        """Measure, and return the statistics, their counts, and drafts of what is written."""
        if self.setup.part is not None:
            if runner.journal is not None:
                runner.journal.begin(runner.plan, lambda done: None)
            own = measure_part(runner, self.setup.source, self.setup.geometry, self.setup.spec)
            moments = self._rounded(runner, own)
            statistics, counts = self._finish_part(moments, plain_sums(own), self.setup.part)
            return statistics, counts, self._drafts(statistics, place, stack)
        work = runner.plan.passes[0]
        kept = self.setup.measured.kept
        if self.setup.rule is not None:
            # Batches are folded in order, so the batch axis has to be the slowest.
            batch = self.setup.layout.batch_axis
            kept = (*(a for a in kept if a == batch), *(a for a in kept if a != batch))
        walk = Walk(work.grid, kept)
        merged = self.setup.exact or self.setup.rule is not None
        source, spec = self.setup.described, self.setup.spec
        kernel = runner.plan.kernel
        job = MeasureJob(self.setup.source, self.setup.measured, walk, kernel, merged, spec)
        if self.setup.by_block:
            assert place is not None
            counts, draft = self._run_by_block(runner, job, source, place)
            return None, counts, ((draft.path, draft.final.absolute()),)
        if runner.journal is not None:
            runner.journal.begin(runner.plan, lambda done: None)
        moving, exact = None, None
        sums: Unrounded
        if self.setup.rule is not None:
            fold = self._fold(walk, self.setup.rule)
            runner.measure(work, job, fold)
            sums, moving = fold.sums, fold.moving
        elif self.setup.exact:
            unrounded = HeldSums(self.setup.geometry.statistics_shape, spec, source.dtype)
            runner.measure(work, job, unrounded)
            sums = unrounded.sums
        else:
            held = HeldMoments(self.setup.geometry.statistics_shape, spec.method, source.dtype)
            runner.measure(work, job, held)
            moments = held.moments
        if merged:
            sums = sums.canonical()
            moments, exact = self._rounded(runner, sums), plain_sums(sums)
        statistics, counts = self._finish(
            moments, exact if self.setup.exact else None, moving, source
        )
        return statistics, counts, self._drafts(statistics, place, stack)

    def _rounded(self, runner: Runner, sums: Unrounded) -> Moments:
        compute = kernels(runner.plan.kernel)
        measurer = Measurer.of(self.setup.spec, self.setup.geometry, compute)
        return measurer.finish(sums, self.setup.described.dtype)

    def _drafts(self, statistics: Statistics, place: RunPlace | None, stack: ExitStack) -> Drafts:
        if self.setup.output is None:
            return ()
        folder = None if place is None else place.folder
        draft = draft_statistics(self.setup.output, statistics, self.setup.overwrite, folder)
        stack.callback(_discard, draft, place)
        return ((draft.path, draft.final.absolute()),)

    def _run_by_block(
        self, runner: Runner, job: MeasureJob, source: SourceDescription, place: RunPlace
    ) -> tuple[Tally, Draft]:
        assert self.setup.output is not None
        work = runner.plan.passes[0]
        stored = StoredSidecar(
            self.setup.output,
            self.setup.geometry,
            work,
            self.setup.spec,
            source.dtype,
            self.setup.source.name,
            self.setup.overwrite,
        )
        place.closing(stored)
        stored.begin(runner.journal)
        if runner.journal is not None:
            runner.journal.begin(runner.plan, lambda done: stored.sink.sync(done.stored_parts))
        runner.measure(work, job, stored.moments)
        stored.seal(source, provenance())
        warn_of(stored.moments.tally, self.setup.spec, self.setup.observer)
        return stored.moments.tally, stored.sink.draft

    def _fold(self, walk: Walk, rule: MovingRule) -> MovingFold:
        batch = self.setup.layout.batch_axis
        assert batch is not None
        shape = self.setup.measured.statistics_shape
        position = self.setup.measured.kept.index(batch)
        one = shape[:position] + shape[position + 1 :]
        return MovingFold(
            moving_start(rule, self.setup.earlier, one, self.setup.spec),
            walk,
            position,
            shape,
            self.setup.measured.segments[batch],
            self.setup.source.info.shape[batch],
            self.setup.spec.nonfinite,
            self.setup.spec.method,
            self.setup.described.dtype,
        )

    def _finish(
        self,
        moments: Moments,
        exact: ExactMoments | None,
        moving: MovingStatistics | None,
        source: SourceDescription,
    ) -> tuple[Statistics, Tally]:
        require_usable(moments, self.setup.spec, source.dtype, self.setup.source.name)
        if moving is not None:
            require_moving_usable(moving, moments, self.setup.spec, self.setup.source.name)
        if self.setup.earlier is not None:
            before = self.setup.earlier.moments
            assert before is not None
            sides = ((before, self.setup.earlier.exact), (moments, exact))
            moments, exact = added(sides, self.setup.spec.method, source.dtype)
            source = extended(self.setup.earlier.source, source, self.setup.layout)
            require_usable(
                moments, self.setup.spec, source.dtype, f"{self.setup.source.name} with --update"
            )
        made = provenance()
        statistics = Statistics(
            self.setup.spec, source, moments, moving=moving, provenance=made, exact=exact
        )
        counts = tally(moments, self.setup.spec, source.dtype)
        warn_of(counts, self.setup.spec, self.setup.observer)
        return statistics, counts

    def _finish_part(
        self, moments: Moments, exact: ExactMoments, part: Part
    ) -> tuple[Statistics, Tally]:
        # Groups are judged when they are whole: in merge.
        source = replace(self.setup.described, part=part)
        statistics = Statistics(
            self.setup.spec, source, moments, provenance=provenance(), exact=exact
        )
        return statistics, tally(moments, self.setup.spec, source.dtype)


def _discard(draft: Draft, place: RunPlace | None) -> None:
    if place is None or not place.handing_over:
        draft.discard()
