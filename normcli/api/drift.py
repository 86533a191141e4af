"""Whether an input is still what given statistics were taken from.

Statistics are made to be applied to other data too, so that another path says nothing. The same
path with other content does: then they are those of data that are no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.api.fitting import fit_arrays
from normcli.api.options import FitOptions, NormOptions, RunOptions
from normcli.api.updating import continued_options
from normcli.arrays.files import sampled_whole
from normcli.domain.moments import Moments
from normcli.domain.statistics import SourceDescription, Statistics
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError

HINT = "Fit again, or give --force where they are meant for what it holds now."


def changed_inputs(then: SourceDescription, now: SourceDescription) -> Iterator[tuple[str, bool]]:
    """Yield each input of the fit that is another now, and whether that is certain.

    It is certain by its size or its content sample. Where the time of its last write alone
    differs, and the sample is not the whole file, an element between may have changed.

    Parameters
    ----------
    then, now : SourceDescription
        The data that statistics were taken from, and those at hand.
    """
    for entry in now.inputs:
        place = [entry.get(name) for name in ("path", "array")]
        if place[0] == "-":
            continue
        # One file may be in statistics more than once, as data that are renewed each day are.
        before = [e for e in then.inputs if [e.get(name) for name in ("path", "array")] == place]
        alike = [e for e in before if _content(e) == _content(entry)]
        if before and not alike:
            yield str(place[0]), True
        elif before and not any(_is_same(e, entry) for e in alike):
            yield str(place[0]), False


def _content(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry.get("size"), entry.get("fingerprint")


def _is_same(before: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a file with the same content sample is the same for certain."""
    if before.get("mtime_ns") == entry.get("mtime_ns"):
        return True
    return sampled_whole(Path(str(entry.get("path"))), int(entry.get("size") or 0))


def refuse_changed(
    statistics: Statistics,
    now: SourceDescription,
    name: str,
    options: NormOptions,
    run: RunOptions,
    observer: Observer,
    force: bool,
) -> None:
    """Refuse an input that has changed since statistics were taken from it.

    An input that was only written to (its size and content sample are the same) is measured once
    more where that can tell: statistics that are rounded once are the same to the last bit, in any
    blocks, if the data are.

    Parameters
    ----------
    statistics : Statistics
        What is applied.
    now : SourceDescription
        The input at hand.
    name : str
        Its name as the user wrote it.
    options : NormOptions
        How it is read.
    run : RunOptions
        Where it is measured; a dry run measures nothing.
    observer : Observer
        Who is told.
    force : bool
        Warn in place of refusing.

    Raises
    ------
    DataPolicyError
        When it has changed.
    """
    for path, certain in changed_inputs(statistics.source, now):
        if force:
            told = "has changed" if certain else "was written to"
            observer.warn(f"{path} {told} since the statistics were taken from it.")
        elif certain or _differs(statistics, name, options, run, observer):
            raise DataPolicyError(
                f"{path} has changed since the statistics were taken from it.", HINT
            )


def _differs(
    statistics: Statistics, name: str, options: NormOptions, run: RunOptions, observer: Observer
) -> bool:
    """Measure an input once more; return whether its statistics are others now."""
    source, moments = statistics.source, statistics.moments
    if moments is None or len(source.inputs) != 1 or source.part is not None or run.dry_run:
        _leave_open(name, observer)
        return False
    observer.note(
        f"{name} was written to since the statistics were taken from it; it is measured again, "
        "to see whether they are still those of it"
    )
    # The statistics of a fit that left chunks out lack their elements.
    seen = int(moments.count.sum()) + int(moments.nonfinite.sum())
    omitted = bool(source.missing_chunks) and seen < prod(source.shape)
    fit = FitOptions(
        missing="omit" if omitted else options.missing,
        allow_external_refs=options.allow_external_refs,
        allow_symlinks=options.allow_symlinks,
        isolate=options.isolate,
    )
    again = replace(run, overwrite=False, restart=False)
    fit = continued_options(fit, statistics.spec)
    found = fit_arrays([name], None, fit, again, Observer()).statistics
    if found is None or found.moments is None or found.moments.shape != moments.shape:
        # Options cannot say every spec: batches of --training are none of a fit.
        _leave_open(name, observer)
        return False
    return not _same(found.moments, moments)


def _leave_open(name: str, observer: Observer) -> None:
    observer.warn(
        f"{name} was written to since the statistics were taken from it; its size and the sample "
        "of its content are the same.",
        "normcli fit tells whether they still are its statistics.",
    )


def _same(one: Moments, other: Moments) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in Moments.names()
    )
