"""fit --part: one of several parts of an array, measured by itself."""

from __future__ import annotations

from normcli.api.options import FitOptions
from normcli.arrays.access import ArraySource
from normcli.domain.geometry import Geometry
from normcli.domain.moment_kinds import Unrounded, plain_sums
from normcli.domain.norm_spec import NormSpec
from normcli.domain.part import Part, parse_part
from normcli.engine.collectors import HeldSums
from normcli.engine.run import Runner
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.errors import DataPolicyError, UsageError
from normcli.planning.parts import cut


def make_part(
    options: FitOptions, source: ArraySource, geometry: Geometry, by_block: bool
) -> Part | None:
    """Return the part that the options ask for, or None for the whole.

    Raises
    ------
    UsageError
        When it is malformed, or the statistics that are asked for cannot be merged.
    """
    if options.part is None:
        return None
    number, of = parse_part(options.part)
    if of == 1:
        return None
    if options.momentum is not None or options.batch_size is not None:
        raise UsageError(
            "Moving statistics depend on the order of batches, so parts of them cannot be merged.",
            "Leave out --part, or --momentum and --batch-size.",
        )
    if options.update is not None:
        raise UsageError(
            "--update would count the earlier statistics once for each part.",
            f"Merge them in the end: normcli merge {options.update} STATS... -o STATS",
        )
    if source.info.storage == "stream":
        raise UsageError("A pipe can be read from its beginning only.", "Leave out --part.")
    if by_block:
        raise UsageError(
            f"The statistics of {geometry.group_count} groups outgrow the memory in which parts "
            "are merged.",
            "apply measures each observation on the way; it needs no fit.",
        )
    return cut(source.info, geometry, number, of)


def measure_part(
    runner: Runner, source: ArraySource, geometry: Geometry, spec: NormSpec
) -> Unrounded:
    """Measure the boxes that the plan of a part consists of, without rounding.

    Raises
    ------
    DataPolicyError
        When non-finite values are to end the run, and there are some.
    """
    held = HeldSums(geometry.statistics_shape, spec, source.info.dtype)
    for work in runner.plan.passes:
        walk = Walk(work.grid, geometry.kept)
        job = MeasureJob(source, geometry, walk, runner.plan.kernel, True, spec)
        runner.measure(work, job, held)
    # All other policies speak of whole groups, and are looked at when the parts are merged.
    bad = int(plain_sums(held.sums).nonfinite.sum())
    if spec.nonfinite == "error" and bad:
        raise DataPolicyError(
            f"{source.name} holds {bad} NaN or infinite values in this part.",
            "--nonfinite omit leaves them out of the statistics.",
        )
    sums: Unrounded = held.sums.canonical()
    return sums
