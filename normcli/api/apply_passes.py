"""An apply carried out: its passes over the input, the output, and what lies beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from normcli.api.apply_setup import ApplySetup
from normcli.api.continuing import RunPlace
from normcli.api.lost_results import refuse_damped, refuse_vanishing
from normcli.api.parameters import Known, stored_arrays
from normcli.api.preparing import provenance, require_unchanged
from normcli.api.sidecars import StoredSidecar
from normcli.api.warnings import warn_of, warn_of_losses
from normcli.arrays.access import ArraySource, StoredPart
from normcli.arrays.kept import KeepingSource, KeptBlocks, KeptSource
from normcli.arrays.manifest import Manifest, draft_manifest, manifest_path
from normcli.bundles.statistics_file import draft_statistics
from normcli.domain.moment_kinds import rest_names
from normcli.domain.moments import Moments
from normcli.domain.normalizers import fitted_normalizer, require_told_apart
from normcli.domain.statistics import Statistics
from normcli.domain.usability import require_usable
from normcli.engine.collectors import Collector, HeldMoments
from normcli.engine.done import Done
from normcli.engine.report import Report, Tally, tally
from normcli.engine.run import Runner, Written
from normcli.engine.tables import AffineTables, HeldTables, NormalizerTables, StoredTables
from normcli.engine.tasks import ApplyJob, MeasureJob
from normcli.engine.walk import Walk
from normcli.publishing import Draft, Handover


class ApplyPasses:
    """Carries out what was settled.

    Parameters
    ----------
    setup : ApplySetup
        What was settled.
    runner : Runner
        Carries out the plan's passes.
    begin : float
        When the run began, as `time.perf_counter` tells it.
    """

    def __init__(self, setup: ApplySetup, runner: Runner, begin: float) -> None:
        self.setup, self.runner, self._begin = setup, runner, begin
        self.overwrite = setup.overwrite
        self._stored: StoredSidecar | None = None
        self._place: RunPlace | None = None
        self._drafts: list[Draft] = []
        self._blocks: KeptBlocks = {}

    def run(self, stack: ExitStack, place: RunPlace | None) -> Report:
        """Carry out the plan; give output and sidecar their names when both are complete."""
        setup = self.setup
        self._place = place
        if place is None:
            stack.callback(setup.sink.discard)
        else:
            place.closing(setup.sink)
        stack.callback(self._discard_drafts, place)
        if setup.by_block and setup.known is None:
            self._stored = self._stored_sidecar(stack, place)
        self._begin_sinks()
        written, counts = self._passes()
        require_unchanged(setup.source, setup.state)
        sealed = setup.sink.seal()
        report = self._report(written, counts)
        if place is None:
            setup.sink.publish()
        else:
            self._draft_manifest(place, written, sealed)
            place.hand_over(self._handover(), report)
        return report

    def _begin_sinks(self) -> None:
        sink, journal = self.setup.sink, self.runner.journal
        if self._stored is not None:
            self._stored.begin(journal)
        parts = [] if journal is None else journal.parts()
        if not (parts and sink.resume(parts)):
            if parts and journal is not None:
                journal.forget()
            sink.create()
        if journal is not None:
            journal.begin(self.runner.plan, self._sync)

    def _sync(self, done: Done) -> None:
        if done.parts:
            self.setup.sink.sync(done.parts)
        if done.stored_parts and self._stored is not None:
            self._stored.sink.sync(done.stored_parts)

    def _passes(self) -> tuple[Written, Tally]:
        setup = self.setup
        if setup.known is not None:
            tables = self._known_tables(setup.known)
            written = self._apply(tables, None)
            counts = Tally(groups=setup.geometry.group_count)
            if setup.known.statistics.moments is not None:
                counts = tally(
                    setup.known.statistics.moments, setup.spec, setup.known.statistics.source.dtype
                )
            self._draft_sidecar(setup.known.statistics)
            return written, counts
        if self._stored is not None:
            return self._passes_by_block(self._stored)
        held = HeldMoments(
            setup.geometry.statistics_shape, setup.spec.method, setup.described.dtype
        )
        if self.runner.plan.fused:
            written = self._apply(None, held)
            statistics = self._statistics(held.moments)
        else:
            self._measure(held)
            require_usable(held.moments, setup.spec, setup.described.dtype, setup.source.name)
            statistics = self._statistics(held.moments)
            refuse_damped(setup.spec, setup.options, statistics)
            written = self._apply(self._known_tables(Known(statistics)), None)
        counts = tally(held.moments, setup.spec, setup.described.dtype)
        warn_of(counts, setup.spec, setup.observer)
        self._draft_sidecar(statistics)
        return written, counts

    def _stored_sidecar(self, stack: ExitStack, place: RunPlace | None) -> StoredSidecar:
        setup = self.setup
        where = setup.sidecar
        if where is None and place is not None:
            where = str(place.folder / "stats.zarr")
        elif where is None:
            folder = tempfile.mkdtemp(prefix="normcli-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            where = os.path.join(folder, "stats.zarr")
        stored = StoredSidecar(
            where,
            setup.geometry,
            self.runner.plan.passes[0],
            setup.spec,
            setup.described.dtype,
            setup.source.name,
            self.overwrite,
            setup.affine,
        )
        if place is not None:
            place.closing(stored)
        return stored

    def _passes_by_block(self, stored: StoredSidecar) -> tuple[Written, Tally]:
        setup = self.setup
        if self.runner.plan.fused:
            written = self._apply(None, stored.moments)
        else:
            self._measure(stored.moments)
        counts = stored.moments.tally
        warn_of(counts, setup.spec, setup.observer)
        stored.seal(setup.described, provenance())
        if not self.runner.plan.fused:
            rests = rest_names(setup.spec.method, setup.described.dtype)
            arrays = stored_arrays(str(stored.sink.draft.path), setup.spec.method, rests)
            tables = StoredTables(arrays, setup.spec, setup.described.dtype)
            written = self._apply(tables, None)
        return written, counts

    def _known_tables(self, known: Known) -> NormalizerTables:
        setup = self.setup
        statistics = known.statistics
        if known.stored is not None:
            return StoredTables(known.stored, setup.spec, statistics.source.dtype)
        estimate, dtype = setup.options.estimate, setup.described.dtype
        require_told_apart(statistics, setup.spec, estimate, dtype, setup.source.name)
        whole = fitted_normalizer(statistics, setup.spec, estimate)
        refuse_vanishing(
            setup.spec,
            setup.options,
            statistics,
            whole,
            setup.applied,
            setup.dtype,
            setup.observer,
        )
        return HeldTables(whole)

    def _measure(self, collector: Collector) -> None:
        setup = self.setup
        work = self.runner.plan.passes[0]
        walk = Walk(work.grid, setup.geometry.kept)
        source: ArraySource = setup.source
        if self.runner.plan.kept_memory:
            source = KeepingSource(source, self._blocks)
        kernel = self.runner.plan.kernel
        job = MeasureJob(source, setup.geometry, walk, kernel, spec=setup.spec)
        self.runner.measure(work, job, collector)

    def _apply(self, tables: NormalizerTables | None, collector: Collector | None) -> Written:
        setup = self.setup
        work = self.runner.plan.passes[-1]
        # Blocks that are measured on the way hold whole groups: each is a region of its own.
        walk = Walk(work.grid, setup.geometry.kept if tables is None else ())
        source: ArraySource = setup.source
        if self.runner.plan.kept_memory:
            source = KeptSource(source, self._blocks)
        job = ApplyJob(
            source,
            setup.sink,
            "",
            setup.dtype,
            setup.geometry,
            setup.spec,
            walk,
            self.runner.plan.kernel,
            AffineTables(setup.applied),
            tables,
            setup.options.inverse,
            setup.options.overflow == "saturate",
        )
        written = self.runner.apply(work, job, collector)
        warn_of_losses(written.losses, setup.dtype, setup.observer)
        return written

    def _statistics(self, moments: Moments) -> Statistics:
        setup = self.setup
        return Statistics(setup.spec, setup.described, moments, provenance=provenance())

    def _draft_sidecar(self, statistics: Statistics) -> None:
        setup = self.setup
        if setup.sidecar is not None:
            # What undoes the output is what it was normalized with, which is also what is taken
            # where nobody says --estimate: moving statistics that were left aside are left out.
            pooled = setup.options.estimate == "pooled"
            complete = replace(
                statistics,
                spec=setup.spec,
                moving=None if pooled else statistics.moving,
                affine=setup.affine,
                provenance=provenance(),
            )
            folder = None if self._place is None else self._place.room_for(setup.sidecar)
            draft = draft_statistics(setup.sidecar, complete, self.overwrite, folder)
            self._drafts.append(draft)

    def _draft_manifest(
        self, place: RunPlace, written: Written, sealed: tuple[StoredPart, ...]
    ) -> None:
        sink = self.setup.sink
        (inner,) = sink.inside
        manifest = Manifest.of(
            sink.container,
            sink.inside,
            (*written.parts, *sealed),
            {inner: written.moments},
            str(provenance()["version"]),
            {inner: written.losses},
        )
        path = manifest_path(sink.name)
        self._drafts.append(draft_manifest(path, manifest, self.overwrite, place.folder))

    def _discard_drafts(self, place: RunPlace | None) -> None:
        if place is not None and place.handing_over:
            return  # The next run gives them their names.
        for draft in self._drafts:
            draft.discard()

    def _handover(self) -> Handover:
        drafts = [self.setup.sink.draft, *self._drafts]
        if self._stored is not None and self.setup.sidecar is not None:
            drafts.append(self._stored.sink.draft)
        return Handover.of((draft.path, draft.final.absolute()) for draft in drafts)

    def _report(self, outcome: Written, counts: Tally) -> Report:
        """Return what was done."""
        setup = self.setup
        plan = self.runner.plan
        written = outcome.moments
        any_finite = bool(written.count)
        return Report(
            command="apply",
            inputs=(setup.source.name,),
            output=setup.output,
            stats=setup.sidecar,
            shape=setup.source.info.shape,
            dtype=str(setup.source.info.dtype),
            output_dtype=str(setup.dtype),
            passes=len(plan.passes),
            tally=counts,
            written_mean=float(written.mean) if any_finite else None,
            written_std=float(np.sqrt(written.variance())) if any_finite else None,
            written_nonfinite=int(written.nonfinite),
            losses=outcome.losses,
            chunks=setup.source.missing.total,
            missing_chunks=setup.source.missing.missing,
            bytes_read=plan.bytes_read,
            bytes_written=plan.bytes_written,
            seconds=time.perf_counter() - self._begin,
            workers=plan.workers,
            kernel=plan.kernel,
        )
