"""fit: from inputs to statistics, in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from normcli.api.capacity import kernel_for, make_scheduler, resources
from normcli.api.continuing import RunPlace
from normcli.api.fit_passes import FitPasses
from normcli.api.fit_setup import FitSetup
from normcli.api.moving import earlier_statistics
from normcli.api.options import FitOptions, RunOptions
from normcli.api.preparing import input_rules, require_unchanged, resolve_layout, warn_of_input
from normcli.api.sidecars import check_sidecar, refuse_shared
from normcli.api.updating import continued_options
from normcli.arrays.opening import open_joined, open_source
from normcli.bundles.statistics_file import read_statistics
from normcli.domain.statistics import (
    Statistics,
)
from normcli.engine.events import Observer
from normcli.engine.report import Report
from normcli.engine.run import Runner
from normcli.errors import UsageError
from normcli.planning.plan import Plan
from normcli.publishing import Handover


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
    earlier = earlier_statistics(options.update)
    if earlier is not None:
        options = continued_options(options, earlier.spec)
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
        scheduler = stack.enter_context(closing(make_scheduler(run)))
        scheduler.accept(inputs, None, source)
        setup = FitSetup(source, layout, output, options, run, observer, earlier)
        given = resources(run, scheduler, observer)
        journal = None
        if place is not None and "-" not in inputs:
            journal = place.journal(setup.settings())
            found = place.finish_handover()
            if found is not None:
                assert journal.plan is not None
                assert output is not None
                statistics = None if setup.by_block else read_statistics(output)
                return FitOutcome(journal.plan, statistics, found)
        again = place.plan_again(given) if place is not None else None
        plan = again or setup.plan(given, kernel_for(source.info.nbytes, scheduler))
        observer.planned(plan)
        if run.dry_run:
            return FitOutcome(plan, None, None)
        runner = Runner(plan, scheduler, observer, journal)
        statistics, counts, drafts = FitPasses(setup).run(runner, place, stack)
        require_unchanged(source, setup.state)
        report = Report(
            command="fit",
            inputs=tuple(inputs),
            stats=output,
            shape=source.info.shape,
            dtype=str(source.info.dtype),
            passes=len(plan.passes),
            tally=counts,
            chunks=source.missing.total,
            missing_chunks=source.missing.missing,
            bytes_read=plan.bytes_read,
            seconds=time.perf_counter() - begin,
            workers=plan.workers,
            kernel=plan.kernel,
        )
        if place is not None:
            place.hand_over(Handover.of(drafts), report)
    return FitOutcome(plan, statistics, report)
