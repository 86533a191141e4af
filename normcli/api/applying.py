"""apply: from an input to its normalized copy, in one pass or two."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from normcli.api.apply_passes import ApplyPasses
from normcli.api.apply_setup import ApplySetup
from normcli.api.capacity import kernel_for, make_scheduler, resources
from normcli.api.continuing import RunPlace
from normcli.api.options import ApplyOptions, RunOptions
from normcli.api.preparing import input_rules, warn_of_input
from normcli.arrays.opening import open_source, refuse_same
from normcli.arrays.paths import parse_path
from normcli.engine.events import Observer
from normcli.engine.report import Report
from normcli.engine.run import Runner
from normcli.planning.plan import Plan


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
        source = stack.enter_context(closing(open_source(input_name, input_rules(options))))
        warn_of_input(source, observer)
        place = None
        if output != "-" and not run.dry_run:
            container = parse_path(output, "output").container
            place = stack.enter_context(RunPlace(container, run, observer))
            run = replace(run, overwrite=run.overwrite or place.handing_over)
        setup = ApplySetup(source, input_name, output, options, run, observer)
        scheduler = stack.enter_context(closing(make_scheduler(run)))
        scheduler.accept([input_name], output if place else None, source, setup.sink)
        given = resources(run, scheduler, observer)
        kernel, local = kernel_for(source.info.nbytes, scheduler), not scheduler.distributed
        if run.dry_run or place is None:
            plan = setup.plan(given, kernel, local)
            observer.planned(plan)
            if run.dry_run:
                return ApplyOutcome(plan, None)
            applying = ApplyPasses(setup, Runner(plan, scheduler, observer), begin)
            return ApplyOutcome(plan, applying.run(stack, None))
        journal = None
        if input_name != "-":
            if setup.by_block and setup.sidecar is not None:
                place.also(setup.sidecar)
            journal = place.journal(setup.settings())
            found = place.finish_handover()
            if found is not None:
                assert journal.plan is not None
                return ApplyOutcome(journal.plan, found)
        again = place.plan_again(given)
        plan = again or setup.plan(given, kernel, local)
        observer.planned(plan)
        applying = ApplyPasses(setup, Runner(plan, scheduler, observer, journal), begin)
        return ApplyOutcome(plan, applying.run(stack, place))
