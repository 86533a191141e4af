"""learn: from an input and a target to the scale and bias that carry one to the other."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from normcli.api.capacity import kernel_for, make_scheduler, resources
from normcli.api.continuing import RunPlace
from normcli.api.learning_file import check_name, check_place, draft_learned, read_learned
from normcli.api.learning_options import LearnOptions
from normcli.api.learning_passes import LearnPasses
from normcli.api.learning_setup import LearnSetup
from normcli.api.learning_terms import learn_rule
from normcli.api.options import RunOptions
from normcli.api.preparing import input_rules, warn_of_input
from normcli.arrays.opening import open_source
from normcli.domain.affine import Affine
from normcli.engine.events import Observer
from normcli.engine.report import Report
from normcli.engine.run import Runner
from normcli.errors import UsageError
from normcli.planning.learning import journaled, plan_learn
from normcli.planning.plan import Plan
from normcli.publishing import Draft, Handover


@dataclass(frozen=True)
class LearnOutcome:
    """What a learning run leaves.

    Attributes
    ----------
    plan : Plan
        What was (or would be) done.
    affine : Affine or None
        Scale and bias, float64, with the extents of the scale axes; None after a dry run.
    report : Report or None
        None after a dry run; ``report.learned`` tells the losses.
    """

    plan: Plan
    affine: Affine | None
    report: Report | None


def learn_arrays(
    input_name: str,
    target_name: str,
    output: str | None,
    options: LearnOptions,
    run: RunOptions,
    observer: Observer,
) -> LearnOutcome:
    """Learn the scale and bias that carry the normalized input to the target.

    Parameters
    ----------
    input_name, target_name : str
        Names of arrays of the same shape.
    output : str or None
        File for scale and bias, or None.
    options : LearnOptions
        What is learned, and how.
    run : RunOptions
        Where and how.
    observer : Observer
        Who is told.

    Returns
    -------
    LearnOutcome
    """
    begin = time.perf_counter()
    rule, rules = learn_rule(options), input_rules(options)
    for name in (input_name, target_name):
        if name == "-":
            raise UsageError(
                "learn reads input and target side by side, which a pipe cannot give.",
                "Write the array to a file first.",
            )
    inputs = (input_name, target_name)
    if output is not None:
        check_name(output, rule, inputs)
        if run.dry_run:
            check_place(output, run.overwrite)
    with ExitStack() as stack:
        place = None
        if output is not None and not run.dry_run:
            place = stack.enter_context(RunPlace(output, run, observer))
            run = replace(run, overwrite=run.overwrite or place.handing_over)
            check_place(output, run.overwrite)
        source = stack.enter_context(closing(open_source(input_name, rules)))
        target = stack.enter_context(closing(open_source(target_name, rules)))
        for array in (source, target):
            warn_of_input(array, observer)
        setup = LearnSetup(source, target, options, rule, input_name, run, observer)
        if output is not None:
            check_name(output, rule, inputs, prod(setup.geometry.scale_shape))
            check_place(output, run.overwrite, setup.geometry.scale_shape)
        scheduler = stack.enter_context(closing(make_scheduler(run)))
        scheduler.accept(inputs, None, source, target)
        given = resources(run, scheduler, observer)
        journal = None
        if place is not None and journaled(setup.cells):
            journal = place.journal(setup.settings(str(output)))
            found = place.finish_handover()
            if found is not None:
                assert journal.plan is not None
                return LearnOutcome(journal.plan, read_learned(str(output), rule), found)
        again = place.plan_again(given) if place is not None else None
        plan = again or plan_learn(
            source.info,
            target.info,
            setup.geometry,
            setup.cells,
            given,
            kernel_for(source.info.nbytes, scheduler),
            groups_held=setup.geometry.group_count if _held(setup) else 0,
            known=setup.known is not None,
            per_dataset=setup.spec.per_dataset,
        )
        observer.planned(plan)
        if run.dry_run:
            return LearnOutcome(plan, None, None)
        learning = LearnPasses(setup, Runner(plan, scheduler, observer, journal))
        affine, found_out, counts = learning.run()
        setup.require_unchanged()
        report = Report(
            command="learn",
            inputs=inputs,
            output=output,
            stats=str(options.stats) if isinstance(options.stats, str | Path) else None,
            shape=source.info.shape,
            dtype=str(source.info.dtype),
            output_dtype="float64",
            passes=len(plan.passes),
            tally=counts,
            chunks=source.missing.total,
            missing_chunks=source.missing.missing,
            bytes_read=plan.bytes_read,
            bytes_written=affine.nbytes,
            seconds=time.perf_counter() - begin,
            workers=plan.workers,
            kernel=plan.kernel,
            learned=found_out,
        )
        if place is not None:
            draft = draft_learned(str(output), affine, setup, report, run.overwrite, place.folder)
            stack.callback(_discard, draft, place)
            place.hand_over(Handover.of([(draft.path, draft.final.absolute())]), report)
    return LearnOutcome(plan, affine, report)


def _discard(draft: Draft, place: RunPlace) -> None:
    if not place.handing_over:
        draft.discard()


def _held(setup: LearnSetup) -> bool:
    return setup.known is None or setup.known.stored is None
