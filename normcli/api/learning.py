"""learn: from an input and a target to the scale and bias that carry one to the other."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.api.continuing import RunPlace, digest
from normcli.api.learning_file import check_name, check_place, draft_learned, read_learned
from normcli.api.learning_options import LearnOptions
from normcli.api.learning_setup import LearnSetup
from normcli.api.learning_terms import learn_rule
from normcli.api.options import RunOptions
from normcli.api.preparing import (
    input_rules,
    kernel_for,
    make_scheduler,
    provenance,
    resources,
    warn_of_input,
)
from normcli.api.warnings import warn_of
from normcli.arrays.opening import open_source
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.bundles.statistics_file import statistics_document
from normcli.domain.affine import Affine
from normcli.domain.learning import require_learnable
from normcli.domain.learning_exact import solve_exact
from normcli.domain.learning_sgd import descend
from normcli.domain.normalizers import fitted_normalizer
from normcli.domain.pair_moments import PairMoments
from normcli.domain.statistics import Statistics, require_usable
from normcli.engine.collectors import HeldMoments, HeldPairs
from normcli.engine.events import Observer
from normcli.engine.learning import LearnJob
from normcli.engine.report import Report, Tally, tally
from normcli.engine.run import Runner
from normcli.engine.tables import HeldTables, NormalizerTables, StoredTables
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.errors import UsageError
from normcli.planning.learning import journaled, plan_learn
from normcli.planning.plan import Plan
from normcli.publishing import Draft, Handover

# Epochs of which the loss is told: these, their tenfolds, and the last.
TOLD = (1, 2, 5)


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
        setup = LearnSetup(source, target, options, rule, observer)
        if output is not None:
            check_name(output, rule, inputs, prod(setup.geometry.scale_shape))
        scheduler = stack.enter_context(closing(make_scheduler(run, observer)))
        scheduler.accept(inputs, None, source, target)
        given = resources(run, scheduler, observer)
        journal = None
        if place is not None and journaled(setup.cells):
            journal = place.journal(_settings(setup, str(output)))
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
        learning = _Learning(setup, Runner(plan, scheduler, observer, journal))
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
            written_mean=None,
            written_std=None,
            written_nonfinite=None,
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
            place.hand_over(Handover(((draft.path, draft.final.absolute()),)), report)
    return LearnOutcome(plan, affine, report)


class _Learning:
    """Carries out what was settled."""

    def __init__(self, setup: LearnSetup, runner: Runner) -> None:
        self.setup, self.runner = setup, runner

    def run(self) -> tuple[Affine, dict[str, Any], Tally]:
        """Return scale and bias, what is told of them, and counts over the groups."""
        setup, runner = self.setup, self.runner
        if runner.journal is not None:
            runner.journal.begin(runner.plan, lambda done: None)
        tables, counts = self._tables()
        work = runner.plan.passes[-1]
        held = HeldPairs(setup.cells.statistics_shape)
        job = LearnJob(
            setup.source,
            setup.target,
            setup.geometry,
            setup.cells,
            setup.spec,
            Walk(work.grid, setup.cells.kept),
            runner.plan.kernel,
            tables,
        )
        runner.learn(work, job, held)
        where = f"{setup.source.name} and {setup.target.name}"
        require_learnable(held.pairs, setup.spec.nonfinite, where)
        scale, bias, found = self._solve(held.pairs)
        return setup.learned_affine(scale, bias), found, counts

    def _tables(self) -> tuple[NormalizerTables | None, Tally]:
        """Return the statistics to normalize with; None where blocks measure their own."""
        setup, runner = self.setup, self.runner
        if setup.known is not None:
            statistics = setup.known.statistics
            counts = Tally(groups=setup.geometry.group_count)
            if setup.known.stored is not None:
                stored = StoredTables(setup.known.stored, setup.spec, statistics.source.dtype)
                return stored, counts
            if statistics.moments is not None:
                counts = tally(statistics.moments, setup.spec, statistics.source.dtype)
            return _held_tables(setup, statistics), counts
        if len(runner.plan.passes) == 1:
            return None, Tally(groups=setup.geometry.group_count)
        work = runner.plan.passes[0]
        moments = HeldMoments(setup.geometry.statistics_shape, setup.spec.method)
        walk = Walk(work.grid, setup.geometry.kept)
        job = MeasureJob(setup.source, setup.geometry, walk, runner.plan.kernel, spec=setup.spec)
        runner.measure(work, job, moments)
        require_usable(moments.moments, setup.spec, setup.described.dtype, setup.source.name)
        counts = tally(moments.moments, setup.spec, setup.described.dtype)
        warn_of(counts, setup.spec, setup.observer)
        return _held_tables(setup, Statistics(setup.spec, setup.described, moments.moments)), counts

    def _solve(self, pairs: PairMoments) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        setup, made = self.setup, self.setup.objective
        count, skipped = pairs.whole()
        found: dict[str, Any] = {"solver": setup.rule.solver, "pairs": count, "skipped": skipped}
        if setup.rule.solver == "exact":
            solution = solve_exact(made, pairs, setup.observations)
            scale, bias = solution.scale, solution.bias
            losses = [
                made.loss(pairs, setup.observations, *values)
                for values in ((made.scale.start, made.bias.start), (scale, bias))
            ]
            undetermined = int(solution.undetermined.sum())
            if undetermined:
                setup.observer.warn(
                    f"The data do not determine {undetermined} of {scale.size} cells, whose "
                    "scale (or bias, without any pair) stays where it began."
                )
            found |= {"cells": scale.size, "undetermined": undetermined}
            return scale, bias, {**found, "losses": losses}
        batches = _batches_first(pairs, setup)
        descended = descend(made, batches, setup.batches, setup.rule.descent, self._tell)
        found |= {"cells": descended.scale.size, "undetermined": 0, "batches": len(setup.batches)}
        return descended.scale, descended.bias, {**found, "losses": list(descended.losses)}

    def _tell(self, epoch: int, loss: float) -> None:
        last, rest = self.setup.rule.descent.epochs, epoch
        while rest >= 10 and rest % 10 == 0:
            rest //= 10
        if epoch in (0, last) or rest in TOLD:
            self.setup.observer.note(f"loss {loss:.6g} after {epoch} of {last} epochs")


def _discard(draft: Draft, place: RunPlace) -> None:
    if not place.handing_over:
        draft.discard()


def _held(setup: LearnSetup) -> bool:
    return setup.known is None or setup.known.stored is None


def _held_tables(setup: LearnSetup, statistics: Statistics) -> HeldTables:
    estimate = setup.options.estimate
    return HeldTables(fitted_normalizer(statistics, setup.spec, estimate))


def _batches_first(pairs: PairMoments, setup: LearnSetup) -> PairMoments:
    """Return the sums with the axis of batches as the first."""
    names = PairMoments.__dataclass_fields__
    if setup.batch_axis is None:
        return PairMoments(*(getattr(pairs, name)[np.newaxis] for name in names))
    position = setup.cells.kept.index(setup.batch_axis)
    moved = (np.moveaxis(getattr(pairs, name), position, 0) for name in names)
    return PairMoments(*map(np.ascontiguousarray, moved))


def _settings(setup: LearnSetup, output: str) -> dict[str, object]:
    """Return everything that decides the bits of the outcome."""
    statistics: object = None
    if setup.known is not None:
        known = replace(setup.known.statistics, provenance={})
        statistics = digest(statistics_document(known))
        if setup.known.stored is not None:
            statistics = [source.identity() for source in setup.known.stored.values()]
    attrs = statistics_attrs(setup.spec, setup.described)
    start = (setup.objective.scale.start, setup.objective.bias.start)
    return {
        "command": "learn",
        "version": provenance()["version"],
        "input": list(setup.described.inputs),
        "target": list(setup.target_described.inputs),
        "normalization": {k: v for k, v in attrs.items() if k not in ("source", "created")},
        "statistics": statistics,
        "estimate": setup.options.estimate,
        "missing": setup.options.missing,
        "learning": setup.record(),
        "start": [sha256(values.tobytes()).hexdigest() for values in start],
        "output": output,
    }
