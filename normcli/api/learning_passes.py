"""Learning carried out: its passes over input and target, and the solution of their sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcli.api.learning_setup import LearnSetup
from normcli.api.warnings import warn_of
from normcli.domain.affine import Affine
from normcli.domain.learning import require_learnable
from normcli.domain.learning_exact import solve_exact
from normcli.domain.learning_sgd import descend
from normcli.domain.normalizers import fitted_normalizer, require_told_apart
from normcli.domain.pair_moments import PairMoments
from normcli.domain.statistics import Statistics
from normcli.domain.usability import require_usable
from normcli.engine.collectors import HeldMoments, HeldPairs
from normcli.engine.learning import LearnJob
from normcli.engine.report import Tally, tally
from normcli.engine.run import Runner
from normcli.engine.tables import HeldTables, NormalizerTables, StoredTables
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk

# Epochs of which the loss is told: these, their tenfolds, and the last.
TOLD = (1, 2, 5)


class LearnPasses:
    """Carries out what was settled.

    Parameters
    ----------
    setup : LearnSetup
        What was settled.
    runner : Runner
        Carries out the plan's passes.
    """

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
        moments = HeldMoments(
            setup.geometry.statistics_shape, setup.spec.method, setup.described.dtype
        )
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


def _held_tables(setup: LearnSetup, statistics: Statistics) -> HeldTables:
    estimate = setup.options.estimate
    dtype, where = setup.described.dtype, setup.source.name
    require_told_apart(statistics, setup.spec, estimate, dtype, where)
    return HeldTables(fitted_normalizer(statistics, setup.spec, estimate))


def _batches_first(pairs: PairMoments, setup: LearnSetup) -> PairMoments:
    """Return the sums with the axis of batches as the first."""
    names = PairMoments.__dataclass_fields__
    if setup.batch_axis is None:
        return PairMoments(*(getattr(pairs, name)[np.newaxis] for name in names))
    position = setup.cells.kept.index(setup.batch_axis)
    moved = (np.moveaxis(getattr(pairs, name), position, 0) for name in names)
    return PairMoments(*map(np.ascontiguousarray, moved))
