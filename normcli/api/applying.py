"""apply: from an input to its normalized copy, in one pass or two."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from normcli.api.apply_setup import ApplySetup
from normcli.api.options import ApplyOptions, RunOptions
from normcli.api.parameters import Known, stored_arrays
from normcli.api.preparing import kernel_for, make_scheduler, provenance, resources
from normcli.api.sidecars import StoredSidecar
from normcli.api.warnings import warn_of
from normcli.arrays.opening import open_source, refuse_same
from normcli.bundles.statistics_file import write_statistics
from normcli.domain.moments import Moments
from normcli.domain.statistics import Statistics, require_usable
from normcli.domain.transform import normalizer
from normcli.engine.collectors import Collector, HeldMoments
from normcli.engine.events import Observer
from normcli.engine.report import Report, Tally, tally
from normcli.engine.run import Runner
from normcli.engine.tables import AffineTables, HeldTables, NormalizerTables, StoredTables
from normcli.engine.tasks import ApplyJob, MeasureJob
from normcli.engine.walk import Walk
from normcli.planning.plan import Plan
from normcli.planning.planner import plan_apply
from normcli.publishing import Draft


@dataclass(frozen=True)
class ApplyOutcome:
    """What an apply leaves.

    Attributes
    ----------
    plan : Plan
        What was (or would be) done.
    report : Report or None
        None after a dry run.
    """

    plan: Plan
    report: Report | None


def apply_array(
    input_name: str,
    output: str,
    options: ApplyOptions,
    run: RunOptions,
    observer: Observer,
) -> ApplyOutcome:
    """Normalize one array.

    Parameters
    ----------
    input_name, output : str
        Names of arrays; ``-`` is NPY on standard input or output.
    options : ApplyOptions
        What to normalize with.
    run : RunOptions
        Where and how.
    observer : Observer
        Who is told.

    Returns
    -------
    ApplyOutcome
    """
    begin = time.perf_counter()
    refuse_same(output, [input_name])
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_source(input_name)))
        setup = ApplySetup(source, input_name, output, options, run, observer)
        scheduler = stack.enter_context(closing(make_scheduler(run, observer)))
        scheduler.accept([input_name], output, source, setup.sink)
        plan = plan_apply(
            source.info,
            setup.sink_info,
            setup.geometry,
            resources(run, scheduler, observer),
            kernel_for(source.info.nbytes, scheduler),
            groups_held=0 if setup.by_block else setup.geometry.group_count,
            known=setup.known is not None,
            per_dataset=setup.spec.per_dataset,
            affine_bytes=setup.affine.nbytes,
        )
        observer.planned(plan)
        if run.dry_run:
            return ApplyOutcome(plan, None)
        applying = _Applying(setup, Runner(plan, scheduler, observer), run)
        written, counts = applying.run(stack)
    return ApplyOutcome(plan, applying.report(written, counts, time.perf_counter() - begin))


class _Applying:
    """Carries out what was settled."""

    def __init__(self, setup: ApplySetup, runner: Runner, run: RunOptions) -> None:
        self.setup, self.runner, self.overwrite = setup, runner, run.overwrite

    def run(self, stack: ExitStack) -> tuple[Moments, Tally]:
        """Carry out the plan; publish the sidecar and the output when both are complete."""
        setup = self.setup
        stack.callback(setup.sink.discard)
        setup.sink.create()
        passes = self.runner.plan.passes
        if setup.known is not None:
            tables = self._known_tables(setup.known)
            written = self._apply(tables, None)
            counts = Tally(groups=setup.geometry.group_count)
            if setup.known.statistics.moments is not None:
                counts = tally(
                    setup.known.statistics.moments, setup.spec, setup.known.statistics.source.dtype
                )
            self._write_sidecar(setup.known.statistics)
        elif setup.by_block:
            written, counts = self._run_by_block(stack)
        else:
            held = HeldMoments(setup.geometry.statistics_shape)
            if len(passes) == 1:
                written = self._apply(None, held)
                statistics = self._statistics(held.moments)
            else:
                self._measure(held)
                require_usable(held.moments, setup.spec, setup.described.dtype, setup.source.name)
                statistics = self._statistics(held.moments)
                setup.refuse_damped(statistics)
                tables = self._known_tables(Known(statistics))
                written = self._apply(tables, None)
            counts = tally(held.moments, setup.spec, setup.described.dtype)
            warn_of(counts, setup.spec, setup.observer)
            self._write_sidecar(statistics)
        try:
            setup.sink.publish()
        except BaseException:
            # A sidecar without its output would speak of what is not there.
            self._withdraw_sidecar()
            raise
        return written, counts

    def _run_by_block(self, stack: ExitStack) -> tuple[Moments, Tally]:
        setup = self.setup
        place = setup.sidecar
        if place is None:
            folder = tempfile.mkdtemp(prefix="normcli-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            place = os.path.join(folder, "stats.zarr")
        work = self.runner.plan.passes[0]
        with StoredSidecar(
            place,
            setup.geometry,
            work,
            setup.spec,
            setup.described.dtype,
            setup.source.name,
            self.overwrite,
            setup.affine,
        ) as sidecar:
            if self.runner.plan.fused:
                written = self._apply(None, sidecar.moments)
            else:
                self._measure(sidecar.moments)
            counts = sidecar.moments.tally
            warn_of(counts, setup.spec, setup.observer)
            sidecar.publish(setup.described, provenance())
        if not self.runner.plan.fused:
            stored = StoredTables(stored_arrays(place), setup.spec, setup.described.dtype)
            try:
                written = self._apply(stored, None)
            except BaseException:
                self._withdraw_sidecar()
                raise
        return written, counts

    def _known_tables(self, known: Known) -> NormalizerTables:
        setup = self.setup
        statistics = known.statistics
        if known.stored is not None:
            return StoredTables(known.stored, setup.spec, statistics.source.dtype)
        estimate = setup.options.estimate
        mean, variance = statistics.estimate(estimate)
        constant = replace(statistics, spec=setup.spec).constant(estimate)
        return HeldTables(normalizer(setup.spec, mean, variance, constant))

    def _measure(self, collector: Collector) -> None:
        setup = self.setup
        work = self.runner.plan.passes[0]
        walk = Walk(work.grid, setup.geometry.kept)
        job = MeasureJob(setup.source, setup.geometry, walk, self.runner.plan.kernel)
        self.runner.measure(work, job, collector)

    def _apply(self, tables: NormalizerTables | None, collector: Collector | None) -> Moments:
        setup = self.setup
        work = self.runner.plan.passes[-1]
        # Blocks that are measured on the way hold whole groups: each is a region of its own.
        walk = Walk(work.grid, setup.geometry.kept if tables is None else ())
        job = ApplyJob(
            setup.source,
            setup.sink,
            "",
            setup.dtype,
            setup.geometry,
            setup.spec,
            walk,
            self.runner.plan.kernel,
            AffineTables(setup.affine),
            tables,
            setup.options.inverse,
        )
        return self.runner.apply(work, job, collector)

    def _statistics(self, moments: Moments) -> Statistics:
        setup = self.setup
        return Statistics(setup.spec, setup.described, moments, provenance=provenance())

    def _write_sidecar(self, statistics: Statistics) -> None:
        setup = self.setup
        if setup.sidecar is not None:
            complete = replace(
                statistics, spec=setup.spec, affine=setup.affine, provenance=provenance()
            )
            write_statistics(setup.sidecar, complete, self.overwrite)

    def _withdraw_sidecar(self) -> None:
        setup = self.setup
        if setup.sidecar is not None:
            Draft(Path(setup.sidecar), Path(setup.sidecar)).discard()

    def report(self, written: Moments, counts: Tally, seconds: float) -> Report:
        """Return what was done."""
        setup = self.setup
        plan = self.runner.plan
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
            bytes_read=plan.bytes_read,
            bytes_written=plan.bytes_written,
            seconds=seconds,
            workers=plan.workers,
            kernel=plan.kernel,
        )
