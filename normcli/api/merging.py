"""merge: the union of statistics that were taken apart, as if one fit had seen everything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from normcli.api.merge_checks import refuse_overlap, require_alike, require_units
from normcli.api.merge_parts import (
    joined_parts,
)
from normcli.api.named_statistics import Named, added_up, moments_of, read_mergeable
from normcli.api.preparing import provenance
from normcli.api.sidecars import check_sidecar
from normcli.api.warnings import warn_of
from normcli.bundles.statistics_file import read_statistics_header, write_statistics
from normcli.domain.moment_kinds import alike, moments_from
from normcli.domain.statistics import Statistics
from normcli.domain.usability import require_usable
from normcli.engine.events import Observer
from normcli.engine.report import Report, tally
from normcli.errors import InputError, UsageError


@dataclass(frozen=True)
class MergeOutcome:
    """What a merge leaves.

    Attributes
    ----------
    statistics : Statistics
        The union.
    report : Report
        What was merged.
    """

    statistics: Statistics
    report: Report


def merge_statistics(
    paths: Sequence[str],
    output: str | None,
    overwrite: bool,
    dry_run: bool,
    observer: Observer,
) -> MergeOutcome:
    """Return, and write, the union of several statistics.

    Parts of one input are put together first, by their number; then the statistics of different
    inputs, in the order given, as ``fit`` joins several inputs along the batch axis.

    Parameters
    ----------
    paths : sequence of str
        Sidecars.
    output : str or None
        Sidecar to write, or None.
    overwrite : bool
        Whether an existing one may be replaced.
    dry_run : bool
        Check everything, write nothing.
    observer : Observer
        Who is told.

    Returns
    -------
    MergeOutcome

    Raises
    ------
    InputError
        When parts are missing or doubled, an input would be counted twice, settings differ, or
        statistics cannot be merged.
    DataPolicyError
        When the union breaks a rule that the fits were given.
    """
    begin = time.perf_counter()
    if not paths:
        raise UsageError("There are no statistics to merge.")
    if output is not None:
        if not overwrite and Path(output).resolve() in {Path(path).resolve() for path in paths}:
            raise UsageError(f"{output} is an input and the output.", "Choose another -o.")
        check_sidecar(output, overwrite)
    given = [Named(path, read_statistics_header(path) or read_mergeable(path)) for path in paths]
    require_alike(given)
    require_units(given, observer)
    whole = joined_parts(given)
    refuse_overlap(whole, observer)
    merged = _union(whole)
    assert merged.moments is not None
    spec, dtype = merged.spec, merged.source.dtype
    where = whole[0].path if len(whole) == 1 else f"{whole[0].path} and {len(whole) - 1} more"
    require_usable(merged.moments, spec, dtype, where)
    counts = tally(merged.moments, spec, dtype)
    warn_of(counts, spec, observer)
    if output is not None and not dry_run:
        groups = int(merged.moments.count.size)
        check_sidecar(output, overwrite, groups, method=spec.method)
        write_statistics(output, merged, overwrite)
    report = Report(
        command="merge",
        inputs=tuple(paths),
        stats=None if dry_run else output,
        shape=merged.source.shape,
        dtype=str(dtype),
        passes=0,
        tally=counts,
        chunks=merged.source.chunks,
        missing_chunks=merged.source.missing_chunks,
        seconds=time.perf_counter() - begin,
        workers=1,
        kernel="numpy",
    )
    return MergeOutcome(merged, report)


def _union(whole: Sequence[Named]) -> Statistics:
    first = whole[0].statistics
    made = provenance()
    if len(whole) == 1:
        return replace(whole[0].loaded(), provenance=made)
    spec = first.spec
    batch = spec.layout.batch_axis
    if batch is None:
        raise InputError(
            f"Statistics of several inputs are joined along the batch axis, but the layout "
            f"{spec.layout} of {whole[0].path} has no N.",
            "Fit with a --layout that has N.",
        )
    if batch not in spec.kept:
        union = added_up(whole)
    elif spec.divided_axis == batch:
        raise InputError(
            f"{whole[0].path} holds statistics of batches, which are not merged.",
            "Merge statistics of a dataset, or of observations.",
        )
    else:
        # Statistics of observations: those of the next input follow.
        axis = spec.kept.index(batch)
        everything = alike([moments_of(named.loaded())[0] for named in whole])
        moments = moments_from(
            spec,
            {
                name: np.concatenate([getattr(part, name) for part in everything], axis)
                for name in everything[0].names()
            },
        )
        union = replace(first, moments=moments, exact=None)
    shape = list(first.source.shape)
    shape[batch] = sum(named.statistics.source.shape[batch] for named in whole)
    inputs = tuple(entry for named in whole for entry in named.statistics.source.inputs)
    source = replace(
        first.source,
        shape=tuple(shape),
        inputs=inputs,
        chunks=sum(named.statistics.source.chunks for named in whole),
        missing_chunks=sum(named.statistics.source.missing_chunks for named in whole),
        units=next((u for named in whole if (u := named.statistics.source.units)), None),
    )
    return replace(union, source=source, provenance=made)
