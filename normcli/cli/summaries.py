"""Plans and reports as names and values: for a table, or for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from normcli.cli.texts import counted, duration, shape_text, size

if TYPE_CHECKING:
    from normcli.api.verification import Verification
    from normcli.engine.report import Report
    from normcli.planning.plan import Plan

NAMED_DAMAGES = 20


class Outcome(Protocol):
    """What a fit, an apply or a learning run leaves."""

    @property
    def plan(self) -> Plan:
        """What was, or would be, done."""

    @property
    def report(self) -> Report | None:
        """What was done; None after a dry run."""


VERBS = {
    "measure": "measuring",
    "apply": "normalizing",
    "fused": "measuring and normalizing",
    "learn": "summing input and target",
    "verify": "comparing",
}


def plan_rows(plan: Plan) -> Iterable[tuple[str, str]]:
    """Yield a plan as names and values."""
    yield "passes", f"{len(plan.passes)} ({plan.reason})"
    for number, work in enumerate(plan.passes, start=1):
        shape = "x".join(map(str, work.grid.block_shape)) or "1"
        taken = "from memory" if plan.kept_memory and number > 1 else "read"
        yield (
            f"pass {number}",
            f"{VERBS[work.kind]}: {counted(len(work.grid), 'block')} of {shape} ({work.reason}), "
            f"{size(work.bytes_read)} {taken}, {size(work.bytes_written)} written",
        )
    if not plan.passes:
        return
    kept = f", {size(plan.kept_memory)} decoded once for both passes" if plan.kept_memory else ""
    yield (
        "memory",
        f"peak {size(plan.peak_memory)} of {size(plan.memory_budget)} "
        f"({counted(plan.workers, 'worker')}, statistics {size(plan.statistics_memory)}{kept})",
    )
    yield "kernels", plan.kernel


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return what a run was to do, and what it did unless it was a dry run, as JSON can hold it."""
    document: dict[str, Any] = {"plan": plan_json(outcome.plan)}
    if outcome.report is not None:
        document["report"] = dict(outcome.report.as_dict())
    return document


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as values that JSON can hold."""
    return {
        "reason": plan.reason,
        "passes": [
            {
                "kind": work.kind,
                "blocks": len(work.grid),
                "block_shape": list(work.grid.block_shape),
                "block_memory": work.block_memory,
                "bytes_read": work.bytes_read,
                "bytes_written": work.bytes_written,
                "reason": work.reason,
            }
            for work in plan.passes
        ],
        "workers": plan.workers,
        "memory_budget": plan.memory_budget,
        "statistics_memory": plan.statistics_memory,
        "kept_memory": plan.kept_memory,
        "peak_memory": plan.peak_memory,
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "kernel": plan.kernel,
    }


def report_rows(report: Report) -> Iterable[tuple[str, str]]:
    """Yield a report as names and values."""
    counts = report.tally
    if report.learned is not None:
        yield from _learned_rows(report, report.learned)
        return
    yield "input", f"{', '.join(report.inputs)} {shape_text(report.shape)} {report.dtype}"
    if report.output is not None:
        yield "output", f"{report.output} {report.output_dtype}"
    if report.stats is not None:
        yield "statistics", report.stats
    named = f" ({'; '.join(counts.constant_names)})" if counts.constant else ""
    yield "groups", f"{counts.groups}, constant {counts.constant}{named}"
    if counts.empty:
        yield (
            "without values",
            f"{counted(counts.empty, 'group')} ({'; '.join(counts.empty_names)})",
        )
    if counts.damped:
        yield (
            "flattened",
            f"{counted(counts.damped, 'group')} with an epsilon above 1 % of their variance",
        )
    if counts.count or counts.nonfinite:
        yield "non-finite", f"{counts.nonfinite} of {counts.count + counts.nonfinite} values"
    if report.missing_chunks:
        yield "not stored", f"{report.missing_chunks} of {report.chunks} chunks"
    if report.written_mean is not None:
        yield (
            "written",
            f"mean {report.written_mean:.6g}, standard deviation {report.written_std:.6g}, "
            f"non-finite {report.written_nonfinite}",
        )
    if report.losses:
        lost = report.losses
        yield (
            "beyond type",
            f"clipped {lost.clipped}, NaN to 0 {lost.nan}, infinite {lost.overflowed}",
        )
    if not report.passes:
        yield "time", duration(report.seconds)
        return
    yield _time_row(report)


def _time_row(report: Report) -> tuple[str, str]:
    moved = report.bytes_read + report.bytes_written
    return (
        "time",
        f"{duration(report.seconds)}, {size(moved)} at {size(report.bytes_per_second)}/s "
        f"({counted(report.passes, 'pass', 'passes')}, {counted(report.workers, 'worker')})",
    )


def _learned_rows(report: Report, found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the report of a learning run."""
    source, target = report.inputs
    yield "input", f"{source} {shape_text(report.shape)} {report.dtype}"
    yield "target", target
    if report.stats is not None:
        yield "statistics", report.stats
    if report.output is not None:
        yield "scale and bias", report.output
    loose = found["undetermined"]
    yield "cells", f"{found['cells']}" + (f", undetermined {loose}" if loose else "")
    yield "pairs", f"{found['pairs']}, left out {found['skipped']}"
    losses = found["losses"]
    steps = "exact"
    if found["solver"] == "sgd":
        batches = counted(found["batches"], "batch", "batches")
        steps = f"{counted(len(losses) - 1, 'epoch')} of {batches}"
    yield "loss", f"{losses[0]:.6g} at the start, {losses[-1]:.6g} now ({steps})"
    yield _time_row(report)


def verification_rows(found: Verification) -> Iterable[tuple[str, str]]:
    """Yield a verification as names and values."""
    yield "output", found.output
    yield (
        "compared with",
        _AGAINST[found.against] + (f" {found.manifest}" if found.manifest else ""),
    )
    what = "array" if found.against != "manifest" else "part"
    yield "read", f"{counted(found.parts, what)}, {size(found.nbytes)} stored"
    for array in found.arrays:
        values = array.as_dict()
        told = "as written" if array.promised else "not compared"
        yield (
            array.name,
            f"{shape_text(array.shape)} {array.dtype}, no element is finite"
            if values["mean"] is None
            else f"{shape_text(array.shape)} {array.dtype}, mean {values['mean']:.6g}, "
            f"standard deviation {values['std']:.6g}, non-finite {values['nonfinite']} ({told})",
        )
    for name in found.unprotected:
        yield "no checksums", f"{name}: a changed element would not show"
    for problem in found.damage[:NAMED_DAMAGES]:
        yield "damaged", problem
    if len(found.damage) > NAMED_DAMAGES:
        yield "damaged", f"and {len(found.damage) - NAMED_DAMAGES} more"
    yield "time", duration(found.seconds)


_AGAINST = {
    "manifest": "its manifest",
    "checksums": "its own checksums, because it has no manifest",
    "statistics": "itself: readable, complete and consistent",
}
