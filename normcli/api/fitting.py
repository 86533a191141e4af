"""fit: from inputs to statistics, in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

from normcli.api.continuing import RunPlace, digest
from normcli.api.moving import earlier_statistics, moving_rule, moving_start
from normcli.api.options import FitOptions, RunOptions
from normcli.api.parts import make_part, measure_part
from normcli.api.preparing import (
    check_expectations,
    describe,
    input_rules,
    input_state,
    kernel_for,
    make_scheduler,
    new_spec,
    provenance,
    require_sketches,
    require_unchanged,
    resolve_layout,
    resources,
    warn_of_input,
)
from normcli.api.sidecars import StoredSidecar, check_sidecar, refuse_shared
from normcli.api.warnings import warn_of
from normcli.arrays.access import ArraySource
from normcli.arrays.opening import open_joined, open_source
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.bundles.statistics_file import (
    draft_statistics,
    read_statistics,
    statistics_document,
)
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry, bind
from normcli.domain.layout import Layout
from normcli.domain.moment_kinds import Unrounded, plain_sums
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.norm_spec import NormSpec
from normcli.domain.part import Part
from normcli.domain.statistics import (
    SourceDescription,
    Statistics,
    added,
    keeps_exact,
    require_usable,
)
from normcli.engine.collectors import HeldMoments, HeldSums, MovingFold
from normcli.engine.events import Observer
from normcli.engine.measuring import Measurer
from normcli.engine.report import Report, Tally, tally
from normcli.engine.run import Runner
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.errors import DataPolicyError, InputError, UsageError
from normcli.kernels.select import kernels
from normcli.planning.memory import method_cost
from normcli.planning.parts import part_boxes
from normcli.planning.plan import Plan
from normcli.planning.planner import GROUPS_IN_MEMORY, Resources, plan_fit, plan_part
from normcli.publishing import Draft, Handover

Drafts = tuple[tuple[Path, Path], ...]


@dataclass(frozen=True)
class FitOutcome:
    """What a fit leaves.

    Attributes
    ----------
    plan : Plan
        What was (or would be) done.
    statistics : Statistics or None
        None after a dry run, and where they outgrew memory and stand in the output alone.
    report : Report or None
        None after a dry run.
    """

    plan: Plan
    statistics: Statistics | None
    report: Report | None


def fit_arrays(
    inputs: Sequence[str],
    output: str | None,
    options: FitOptions,
    run: RunOptions,
    observer: Observer,
) -> FitOutcome:
    """Measure inputs, joined along the batch axis, and write their statistics.

    Parameters
    ----------
    inputs : sequence of str
        Names of arrays.
    output : str or None
        Sidecar to write, or None.
    options : FitOptions
        What to compute.
    run : RunOptions
        Where and how.
    observer : Observer
        Who is told.

    Returns
    -------
    FitOutcome
    """
    begin = time.perf_counter()
    if not inputs:
        raise UsageError("There is no input to fit.")
    if output is not None:
        refuse_shared(output, inputs)
        if run.dry_run:
            check_sidecar(output, run.overwrite)
    rules = input_rules(options)
    with ExitStack() as stack:
        place = None
        if output is not None and not run.dry_run:
            place = stack.enter_context(RunPlace(output, run, observer))
            run = replace(run, overwrite=run.overwrite or place.handing_over)
            check_sidecar(output, run.overwrite)
        source = stack.enter_context(closing(open_source(inputs[0], rules)))
        layout = resolve_layout(options, source, observer)
        if len(inputs) > 1:
            if layout.batch_axis is None:
                raise UsageError(
                    f"Several inputs are joined along the batch axis, but the layout {layout} "
                    "has no N.",
                    "Give a --layout with N.",
                )
            source = stack.enter_context(
                closing(open_joined(list(inputs), layout.batch_axis, rules))
            )
        warn_of_input(source, observer)
        scheduler = stack.enter_context(closing(make_scheduler(run, observer)))
        scheduler.accept(inputs, None, source)
        fit = _Fit(source, layout, output, options, run, observer)
        given = resources(run, scheduler, observer)
        journal = None
        if place is not None and "-" not in inputs:
            journal = place.journal(_settings(fit, options, str(output)))
            found = place.finish_handover()
            if found is not None:
                assert journal.plan is not None
                assert output is not None
                statistics = None if fit.by_block else read_statistics(output)
                return FitOutcome(journal.plan, statistics, found)
        again = place.plan_again(given) if place is not None else None
        plan = again or fit.plan(given, kernel_for(source.info.nbytes, scheduler))
        if plan.passes:
            require_sketches(fit.spec, fit.geometry, plan.passes[0], fit.exact)
        observer.planned(plan)
        if run.dry_run:
            return FitOutcome(plan, None, None)
        runner = Runner(plan, scheduler, observer, journal)
        statistics, counts, drafts = fit.run(runner, place, stack)
        require_unchanged(source, fit.state)
        report = Report(
            command="fit",
            inputs=tuple(inputs),
            output=None,
            stats=output,
            shape=source.info.shape,
            dtype=str(source.info.dtype),
            output_dtype=None,
            passes=len(plan.passes),
            tally=counts,
            written_mean=None,
            written_std=None,
            written_nonfinite=None,
            chunks=source.missing.total,
            missing_chunks=source.missing.missing,
            bytes_read=plan.bytes_read,
            bytes_written=0,
            seconds=time.perf_counter() - begin,
            workers=plan.workers,
            kernel=plan.kernel,
        )
        if place is not None:
            place.hand_over(Handover(drafts), report)
    return FitOutcome(plan, statistics, report)


def _settings(fit: _Fit, options: FitOptions, output: str) -> dict[str, object]:
    """Return everything that decides the bits of the outcome."""
    earlier = None
    if fit.earlier is not None:
        earlier = digest(statistics_document(replace(fit.earlier, provenance={})))
    attrs = statistics_attrs(fit.spec, fit.described)
    return {
        "command": "fit",
        "version": provenance()["version"],
        "input": list(fit.described.inputs),
        "normalization": {k: v for k, v in attrs.items() if k not in ("source", "created")},
        "momentum": [
            options.momentum,
            options.batch_size,
            options.moving_variance,
            options.moving_start,
        ],
        "update": earlier,
        "missing": options.missing,
        "part": None if fit.part is None else str(fit.part),
        "exact": fit.exact,
        "output": output,
    }


class _Fit:
    """One fit: what it measures, and what becomes of it."""

    def __init__(
        self,
        source: ArraySource,
        layout: Layout,
        output: str | None,
        options: FitOptions,
        run: RunOptions,
        observer: Observer,
    ) -> None:
        check_expectations(options, source, layout)
        self.source, self.layout, self.output = source, layout, output
        self.overwrite, self.observer = run.overwrite, observer
        self.state = input_state(source)
        self.described = describe(source)
        self.spec = new_spec(options, layout, source.info)
        self.geometry = bind(self.spec, source.info.shape)
        self.earlier = earlier_statistics(options.update)
        if self.earlier is not None:
            require_same(self.earlier, self.spec, self.geometry, str(options.update))
        self.rule: MovingRule | None = moving_rule(options, self.earlier)
        if self.rule is not None and self.spec.divides_by:
            raise UsageError(
                f"Moving statistics are a mean and a variance; --method {self.spec.method} "
                f"divides by {self.spec.divides_by}.",
                "Leave --momentum and --batch-size out.",
            )
        self.measured = self.geometry
        if self.rule is not None:
            by_batches = self.spec.by_batches(gcd(*self.rule.batch_sizes))
            self.measured = bind(by_batches, source.info.shape)
        if self.spec.ddof and self.geometry.group_size == 1:
            raise DataPolicyError(
                f"Each group of {source.name} has one element, whose variance with divisor "
                "n - 1 is undefined.",
                "Use --ddof 0, or aggregate more axes.",
            )
        groups = self.geometry.group_count
        self.by_block = not self.spec.per_dataset and groups > GROUPS_IN_MEMORY
        self.part = make_part(options, source, self.geometry, self.by_block)
        self.exact = self.part is not None or keeps_exact(self.spec, groups)
        if output is not None:
            needed = None if self.part is None else source.info.dtype
            check_sidecar(output, run.overwrite, groups, self.by_block, needed)
        elif self.by_block and not run.dry_run:
            raise UsageError(
                f"The statistics of {groups} groups are written by block, so they need an output.",
                "Give -o STATS.zarr.",
            )

    def plan(self, resources: Resources, kernel: str) -> Plan:
        """Return what will be read, in which blocks."""
        info = self.source.info
        held = 0 if self.by_block else self.geometry.group_count
        method = method_cost(self.spec, self.geometry, self.exact)
        if self.part is not None:
            boxes = part_boxes(info, self.part)
            return plan_part(info, self.geometry, resources, kernel, held, boxes, method)
        moving_axis = self.layout.batch_axis if self.rule is not None else None
        sums = held if self.exact else 0
        return plan_fit(info, self.measured, resources, kernel, held, moving_axis, sums, method)

    def run(
        self, runner: Runner, place: RunPlace | None, stack: ExitStack
    ) -> tuple[Statistics | None, Tally, Drafts]:
        """Measure, and return the statistics, their counts, and drafts of what is written."""
        if self.part is not None:
            if runner.journal is not None:
                runner.journal.begin(runner.plan, lambda done: None)
            own = measure_part(runner, self.source, self.geometry, self.spec)
            moments = self._rounded(runner, own)
            statistics, counts = self._finish_part(moments, plain_sums(own), self.part)
            return statistics, counts, self._drafts(statistics, place, stack)
        work = runner.plan.passes[0]
        kept = self.measured.kept
        if self.rule is not None:
            # Batches are folded in order, so the batch axis has to be the slowest.
            batch = self.layout.batch_axis
            kept = (*(a for a in kept if a == batch), *(a for a in kept if a != batch))
        walk = Walk(work.grid, kept)
        merged = self.exact or self.rule is not None
        job = MeasureJob(self.source, self.measured, walk, runner.plan.kernel, merged, self.spec)
        source = self.described
        if self.by_block:
            assert place is not None
            counts, draft = self._run_by_block(runner, job, source, place)
            return None, counts, ((draft.path, draft.final.absolute()),)
        if runner.journal is not None:
            runner.journal.begin(runner.plan, lambda done: None)
        moving, exact = None, None
        sums: Unrounded
        if self.rule is not None:
            fold = self._fold(walk, self.rule)
            runner.measure(work, job, fold)
            sums, moving = fold.sums, fold.moving
        elif self.exact:
            unrounded = HeldSums(self.geometry.statistics_shape, self.spec)
            runner.measure(work, job, unrounded)
            sums = unrounded.sums
        else:
            held = HeldMoments(self.geometry.statistics_shape, self.spec.method)
            runner.measure(work, job, held)
            moments = held.moments
        if merged:
            sums = sums.canonical()
            moments, exact = self._rounded(runner, sums), plain_sums(sums)
        statistics, counts = self._finish(moments, exact if self.exact else None, moving, source)
        return statistics, counts, self._drafts(statistics, place, stack)

    def _rounded(self, runner: Runner, sums: Unrounded) -> Moments:
        compute = kernels(runner.plan.kernel)
        return Measurer.of(self.spec, self.geometry, compute).finish(sums)

    def _drafts(self, statistics: Statistics, place: RunPlace | None, stack: ExitStack) -> Drafts:
        if self.output is None:
            return ()
        folder = None if place is None else place.folder
        draft = draft_statistics(self.output, statistics, self.overwrite, folder)
        stack.callback(_discard, draft, place)
        return ((draft.path, draft.final.absolute()),)

    def _run_by_block(
        self, runner: Runner, job: MeasureJob, source: SourceDescription, place: RunPlace
    ) -> tuple[Tally, Draft]:
        assert self.output is not None
        work = runner.plan.passes[0]
        stored = StoredSidecar(
            self.output,
            self.geometry,
            work,
            self.spec,
            source.dtype,
            self.source.name,
            self.overwrite,
        )
        place.closing(stored)
        stored.begin(runner.journal)
        if runner.journal is not None:
            runner.journal.begin(runner.plan, lambda done: stored.sink.sync(done.stored_parts))
        runner.measure(work, job, stored.moments)
        stored.seal(source, provenance())
        warn_of(stored.moments.tally, self.spec, self.observer)
        return stored.moments.tally, stored.sink.draft

    def _fold(self, walk: Walk, rule: MovingRule) -> MovingFold:
        batch = self.layout.batch_axis
        assert batch is not None
        shape = self.measured.statistics_shape
        position = self.measured.kept.index(batch)
        one = shape[:position] + shape[position + 1 :]
        return MovingFold(
            moving_start(rule, self.earlier, one, self.spec),
            walk,
            position,
            shape,
            self.measured.segments[batch],
            self.source.info.shape[batch],
            self.spec.nonfinite,
        )

    def _finish(
        self,
        moments: Moments,
        exact: ExactMoments | None,
        moving: MovingStatistics | None,
        source: SourceDescription,
    ) -> tuple[Statistics, Tally]:
        require_usable(moments, self.spec, source.dtype, self.source.name)
        if self.earlier is not None:
            before = self.earlier.moments
            assert before is not None
            sides = ((before, self.earlier.exact), (moments, exact))
            moments, exact = added(sides)
            source = _extended(self.earlier.source, source, self.layout)
            require_usable(moments, self.spec, source.dtype, f"{self.source.name} with --update")
        made = provenance()
        statistics = Statistics(
            self.spec, source, moments, moving=moving, provenance=made, exact=exact
        )
        counts = tally(moments, self.spec, source.dtype)
        warn_of(counts, self.spec, self.observer)
        return statistics, counts

    def _finish_part(
        self, moments: Moments, exact: ExactMoments, part: Part
    ) -> tuple[Statistics, Tally]:
        # Groups are judged when they are whole: in merge.
        source = replace(self.described, part=part)
        statistics = Statistics(self.spec, source, moments, provenance=provenance(), exact=exact)
        return statistics, tally(moments, self.spec, source.dtype)


def _discard(draft: Draft, place: RunPlace | None) -> None:
    if place is None or not place.handing_over:
        draft.discard()


def require_same(earlier: Statistics, spec: NormSpec, geometry: Geometry, path: str) -> None:
    """Refuse to continue statistics of another kind.

    Raises
    ------
    InputError
        When settings or extents differ.
    UsageError
        When statistics belong to each observation, so that there is nothing to continue.
    """
    if not spec.per_dataset:
        raise UsageError(
            "--update continues statistics of a dataset; these belong to each observation."
        )
    old = earlier.spec
    for name in (
        "mode",
        "method",
        "quantiles",
        "p",
        "aggregated",
        "kept",
        "groups",
        "ddof",
        "nonfinite",
    ):
        if getattr(old, name) != getattr(spec, name):
            raise InputError(
                f"{path} was fitted with {name} {getattr(old, name)}, not {getattr(spec, name)}.",
                "Continue with the same settings, or fit afresh.",
            )
    if earlier.shape != geometry.statistics_shape:
        raise InputError(
            f"{path} holds statistics of shape {earlier.shape}, but this input has "
            f"{geometry.statistics_shape}."
        )


def _extended(
    earlier: SourceDescription, new: SourceDescription, layout: Layout
) -> SourceDescription:
    shape = list(new.shape)
    batch = layout.batch_axis
    if batch is not None and len(earlier.shape) == len(shape):
        shape[batch] += earlier.shape[batch]
    return replace(
        new,
        shape=tuple(shape),
        inputs=(*earlier.inputs, *new.inputs),
        chunks=earlier.chunks + new.chunks,
        missing_chunks=earlier.missing_chunks + new.missing_chunks,
    )
