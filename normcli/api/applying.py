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

from normcli.api.fitting import warn_of
from normcli.api.options import ApplyOptions, RunOptions
from normcli.api.parameters import (
    Known,
    affine_for,
    known_statistics,
    require_fit,
    stored_arrays,
    supplied_statistics,
)
from normcli.api.preparing import (
    batch_sizes,
    check_expectations,
    describe,
    fitted_spec,
    make_scheduler,
    new_spec,
    provenance,
    resolve_layout,
    resources,
)
from normcli.api.sidecars import (
    StoredSidecar,
    check_sidecar,
    default_sidecar,
    refuse_shared,
)
from normcli.arrays.access import ArraySink, ArraySource
from normcli.arrays.opening import make_sink, open_source, output_info, refuse_same
from normcli.arrays.paths import parse_path
from normcli.bundles.statistics_file import write_statistics
from normcli.domain.affine import Affine
from normcli.domain.dtypes import is_float, output_dtype, parse_dtype
from normcli.domain.geometry import bind
from normcli.domain.moments import Moments
from normcli.domain.statistics import Statistics, constant_groups, require_usable
from normcli.domain.transform import normalizer
from normcli.engine.collectors import Collector, HeldMoments
from normcli.engine.events import Observer
from normcli.engine.report import Report, Tally, damped_groups, tally
from normcli.engine.run import Runner
from normcli.engine.tables import AffineTables, HeldTables, NormalizerTables, StoredTables
from normcli.engine.tasks import ApplyJob, MeasureJob
from normcli.engine.walk import Walk
from normcli.errors import DataPolicyError, UsageError
from normcli.kernels.select import choose
from normcli.planning.plan import Plan
from normcli.planning.planner import GROUPS_IN_MEMORY, plan_apply
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
        apply = _Apply(source, input_name, output, options, run, observer)
        scheduler = stack.enter_context(closing(make_scheduler(run)))
        scheduler.accept(source, apply.sink)
        plan = plan_apply(
            source.info,
            apply.sink_info,
            apply.geometry,
            resources(run, scheduler),
            choose(source.info.nbytes),
            groups_held=0 if apply.by_block else apply.geometry.group_count,
            known=apply.known is not None,
            per_dataset=apply.spec.per_dataset,
            affine_bytes=apply.affine.nbytes,
        )
        observer.planned(plan)
        if run.dry_run:
            return ApplyOutcome(plan, None)
        written, counts = apply.run(Runner(plan, scheduler, observer), stack)
    return ApplyOutcome(plan, apply.report(plan, written, counts, time.perf_counter() - begin))


class _Apply:
    """One apply: its statistics, its parameters and its outputs."""

    def __init__(
        self,
        source: ArraySource,
        input_name: str,
        output: str,
        options: ApplyOptions,
        run: RunOptions,
        observer: Observer,
    ) -> None:
        self.source, self.output, self.options = source, output, options
        self.overwrite, self.observer = run.overwrite, observer
        info = source.info
        known = known_statistics(options)
        if known is not None:
            self.spec = fitted_spec(options, known.statistics.spec)
            layout = self.spec.layout
        else:
            layout = resolve_layout(options, source, observer)
            self.spec = new_spec(options, layout, info)
        recorded = known.statistics.affine if known is not None else Affine()
        check_expectations(options, source, layout)
        self._check_training()
        if options.training:
            sizes = batch_sizes(options.batch_size)
            assert sizes is not None
            self.spec = self.spec.by_batches(sizes[0])
            known = None
        self.geometry = bind(self.spec, info.shape)
        described = describe(source)
        if known is None and not options.training:
            supplied = supplied_statistics(options, self.spec, self.geometry, described)
            known = Known(supplied) if supplied is not None else None
        if known is not None:
            require_fit(known, self.geometry, source.name)
        elif options.inverse:
            raise UsageError(
                "--inverse needs the statistics that the data were normalized with.",
                "Give --stats OUTPUT.stats.json, or --mean and --variance.",
            )
        elif options.estimate is not None:
            raise UsageError("--estimate chooses among the statistics of --stats; give --stats.")
        self.known: Known | None = known
        self.described = described
        self.affine = affine_for(options, self.geometry, self.spec, recorded)
        self.dtype = self._dtype()
        self.sink_info = output_info(info, self.dtype, output)
        groups = self.geometry.group_count
        self.by_block = (
            known.stored is not None
            if known is not None
            else not self.spec.per_dataset and groups > GROUPS_IN_MEMORY
        )
        self.sidecar = self._sidecar_name(groups)
        self.sink: ArraySink = make_sink(output, {"": self.sink_info}, run.overwrite)
        if self.sidecar is not None:
            check_sidecar(self.sidecar, run.overwrite, groups, self.by_block)
            refuse_shared(self.sidecar, [input_name], output)
        if known is not None and known.stored is None:
            self._refuse_damped(known.statistics)

    def _check_training(self) -> None:
        options = self.options
        sizes = batch_sizes(options.batch_size)
        if not options.training:
            if sizes is not None:
                raise UsageError("--batch-size of an apply needs --training.")
            return
        if sizes is None or len(sizes) != 1:
            raise UsageError("--training needs one --batch-size.", "For example --batch-size 32.")
        if options.mean is not None or options.variance is not None or options.estimate:
            raise UsageError(
                "--training normalizes each batch by its own statistics; leave --mean, "
                "--variance and --estimate out."
            )

    def _dtype(self) -> np.dtype:
        if self.options.dtype is None:
            return output_dtype(self.source.info.dtype)
        dtype = parse_dtype(self.options.dtype)
        if not is_float(dtype) and not self.options.inverse:
            raise UsageError(
                f"Normalized values are no integers; --dtype {dtype} would lose them.",
                "Use float32, float64 or float16; integers go with --inverse.",
            )
        return dtype

    def _sidecar_name(self, groups: int) -> str | None:
        wanted = self.options.stats_out
        if wanted is False or (self.known is not None and self.known.stored is not None):
            return None
        if wanted is not True:
            return str(wanted)
        if self.output == "-":
            return None
        container = parse_path(self.output, "output").container
        return default_sidecar(str(container), groups)

    def _refuse_damped(self, statistics: Statistics) -> None:
        """Refuse an epsilon that nobody asked for, where it would flatten a dataset."""
        spec = self.spec
        if spec.epsilon_given or not spec.per_dataset or self.options.inverse:
            return
        variance = statistics.estimate(self.options.estimate)[1]
        flat = np.zeros(variance.shape, bool)
        if statistics.moments is not None:
            flat = constant_groups(statistics.moments, statistics.source.dtype)
        damped = damped_groups(spec, variance, flat)
        if damped.any():
            smallest = float(variance[damped].min())
            raise DataPolicyError(
                f"The default epsilon {spec.epsilon:g} exceeds 1 % of the variance of "
                f"{int(damped.sum())} of {damped.size} groups (the smallest is {smallest:.3g}); "
                "it would flatten them.",
                "--epsilon 0 is exact; --epsilon E takes the responsibility for E.",
            )

    def run(self, runner: Runner, stack: ExitStack) -> tuple[Moments, Tally]:
        """Carry out the plan; publish the sidecar and the output when both are complete."""
        stack.callback(self.sink.discard)
        self.sink.create()
        passes = runner.plan.passes
        if self.known is not None:
            tables = self._known_tables(self.known)
            written = self._apply(runner, tables, None)
            counts = Tally(groups=self.geometry.group_count)
            if self.known.statistics.moments is not None:
                counts = tally(
                    self.known.statistics.moments, self.spec, self.known.statistics.source.dtype
                )
            self._write_sidecar(self.known.statistics)
        elif self.by_block:
            written, counts = self._run_by_block(runner, stack)
        else:
            held = HeldMoments(self.geometry.statistics_shape)
            if len(passes) == 1:
                written = self._apply(runner, None, held)
                statistics = self._statistics(held.moments)
            else:
                self._measure(runner, held)
                require_usable(held.moments, self.spec, self.described.dtype, self.source.name)
                statistics = self._statistics(held.moments)
                self._refuse_damped(statistics)
                tables = self._known_tables(Known(statistics))
                written = self._apply(runner, tables, None)
            counts = tally(held.moments, self.spec, self.described.dtype)
            warn_of(counts, self.spec, self.observer)
            self._write_sidecar(statistics)
        try:
            self.sink.publish()
        except BaseException:
            # A sidecar without its output would speak of what is not there.
            self._withdraw_sidecar()
            raise
        return written, counts

    def _run_by_block(self, runner: Runner, stack: ExitStack) -> tuple[Moments, Tally]:
        place = self.sidecar
        if place is None:
            folder = tempfile.mkdtemp(prefix="normcli-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            place = os.path.join(folder, "stats.zarr")
        work = runner.plan.passes[0]
        with StoredSidecar(
            place,
            self.geometry,
            work,
            self.spec,
            self.described.dtype,
            self.source.name,
            self.overwrite,
            self.affine,
        ) as sidecar:
            if runner.plan.fused:
                written = self._apply(runner, None, sidecar.moments)
            else:
                self._measure(runner, sidecar.moments)
            counts = sidecar.moments.tally
            warn_of(counts, self.spec, self.observer)
            sidecar.publish(self.described, provenance())
        if not runner.plan.fused:
            stored = StoredTables(stored_arrays(place), self.spec, self.described.dtype)
            try:
                written = self._apply(runner, stored, None)
            except BaseException:
                self._withdraw_sidecar()
                raise
        return written, counts

    def _known_tables(self, known: Known) -> NormalizerTables:
        statistics = known.statistics
        if known.stored is not None:
            return StoredTables(known.stored, self.spec, statistics.source.dtype)
        estimate = self.options.estimate
        mean, variance = statistics.estimate(estimate)
        constant = replace(statistics, spec=self.spec).constant(estimate)
        return HeldTables(normalizer(self.spec, mean, variance, constant))

    def _measure(self, runner: Runner, collector: Collector) -> None:
        work = runner.plan.passes[0]
        walk = Walk(work.grid, self.geometry.kept)
        job = MeasureJob(self.source, self.geometry, walk, runner.plan.kernel)
        runner.measure(work, job, collector)

    def _apply(
        self, runner: Runner, tables: NormalizerTables | None, collector: Collector | None
    ) -> Moments:
        work = runner.plan.passes[-1]
        # Blocks that are measured on the way hold whole groups: each is a region of its own.
        walk = Walk(work.grid, self.geometry.kept if tables is None else ())
        job = ApplyJob(
            self.source,
            self.sink,
            "",
            self.dtype,
            self.geometry,
            self.spec,
            walk,
            runner.plan.kernel,
            AffineTables(self.affine),
            tables,
            self.options.inverse,
        )
        return runner.apply(work, job, collector)

    def _statistics(self, moments: Moments) -> Statistics:
        return Statistics(self.spec, self.described, moments, provenance=provenance())

    def _write_sidecar(self, statistics: Statistics) -> None:
        if self.sidecar is not None:
            complete = replace(
                statistics, spec=self.spec, affine=self.affine, provenance=provenance()
            )
            write_statistics(self.sidecar, complete, self.overwrite)

    def _withdraw_sidecar(self) -> None:
        if self.sidecar is not None:
            Draft(Path(self.sidecar), Path(self.sidecar)).discard()

    def report(self, plan: Plan, written: Moments, counts: Tally, seconds: float) -> Report:
        """Return what was done."""
        any_finite = bool(written.count)
        return Report(
            command="apply",
            inputs=(self.source.name,),
            output=self.output,
            stats=self.sidecar,
            shape=self.source.info.shape,
            dtype=str(self.source.info.dtype),
            output_dtype=str(self.dtype),
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


def output_names(inputs: list[str], folder: str) -> list[str]:
    """Return the output of each of several inputs: the same name, inside `folder`.

    Raises
    ------
    UsageError
        When two inputs would get the same output, or one is a stream.
    """
    names = []
    for name in inputs:
        if name == "-":
            raise UsageError("Standard input cannot be one of several inputs.", "Apply it alone.")
        path = parse_path(name)
        names.append(str(Path(folder, path.container.name, path.inner)))
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"Several inputs would be written to {name}.",
                "Apply inputs of the same name one at a time.",
            )
    return names
