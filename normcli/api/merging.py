"""merge: the union of statistics that were taken apart, as if one fit had seen everything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from normcli.api.preparing import provenance
from normcli.api.sidecars import check_sidecar
from normcli.api.warnings import warn_of
from normcli.bundles.statistics_file import (
    read_statistics,
    read_statistics_header,
    write_statistics,
)
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.grid import Grid
from normcli.domain.moment_kinds import moments_from
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import (
    SourceDescription,
    Statistics,
    added,
    keeps_exact,
    require_usable,
)
from normcli.engine.events import Observer
from normcli.engine.report import Report, tally
from normcli.errors import InputError, UsageError

_LISTED = 20


@dataclass(frozen=True)
class Named:
    """Statistics with the name of the file they came from.

    Attributes
    ----------
    path : str
        The file, or the first of several that were merged.
    statistics : Statistics
        Its content; without moments as long as it was not loaded, because those of many parts
        may outgrow memory.
    """

    path: str
    statistics: Statistics

    def loaded(self) -> Statistics:
        """Return the statistics with their moments.

        Raises
        ------
        InputError
            When the file holds none that can be merged, or was changed meanwhile.
        """
        if self.statistics.moments is not None:
            return self.statistics
        found = _read(self.path)
        if found.source != self.statistics.source or found.spec != self.statistics.spec:
            raise InputError(f"{self.path} was changed while it was merged.", "Merge again.")
        return found


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
    given = [Named(path, read_statistics_header(path) or _read(path)) for path in paths]
    _require_alike(given)
    whole = _joined_parts(given)
    _refuse_overlap(whole, observer)
    merged = _union(whole)
    assert merged.moments is not None
    spec, dtype = merged.spec, merged.source.dtype
    where = whole[0].path if len(whole) == 1 else f"{whole[0].path} and {len(whole) - 1} more"
    require_usable(merged.moments, spec, dtype, where)
    counts = tally(merged.moments, spec, dtype)
    warn_of(counts, spec, observer)
    if output is not None and not dry_run:
        check_sidecar(output, overwrite, int(merged.moments.count.size))
        write_statistics(output, merged, overwrite)
    report = Report(
        command="merge",
        inputs=tuple(paths),
        output=None,
        stats=None if dry_run else output,
        shape=merged.source.shape,
        dtype=str(dtype),
        output_dtype=None,
        passes=0,
        tally=counts,
        written_mean=None,
        written_std=None,
        written_nonfinite=None,
        chunks=merged.source.chunks,
        missing_chunks=merged.source.missing_chunks,
        bytes_read=0,
        bytes_written=0,
        seconds=time.perf_counter() - begin,
        workers=1,
        kernel="numpy",
    )
    return MergeOutcome(merged, report)


def _read(path: str) -> Statistics:
    statistics = read_statistics(path)
    if statistics.moving is not None:
        raise InputError(
            f"{path} holds moving statistics, which depend on the order of batches and cannot be "
            "merged.",
            "Continue them in order instead: normcli fit NEXT --update STATS",
        )
    if statistics.moments is None:
        raise InputError(
            f"{path} holds a mean and a variance without counts, which cannot be merged.",
            "Fit from the data.",
        )
    return statistics


def _require_alike(given: Sequence[Named]) -> None:
    """Refuse settings that differ, with the name of the first that does."""
    first = given[0]
    for other in given[1:]:
        for field, a, b in _settings(first.statistics, other.statistics):
            if a != b:
                raise InputError(
                    f"{first.path} has {field} {a}, but {other.path} has {field} {b}.",
                    "Only statistics of the same settings and the same kind of data are merged.",
                )
        a, b = first.statistics.affine, other.statistics.affine
        for term in ("scale", "bias"):
            if not _same(getattr(a, term), getattr(b, term)):
                raise InputError(
                    f"{first.path} and {other.path} were applied with a different {term}.",
                    "Merge statistics of fits.",
                )


def _settings(a: Statistics, b: Statistics) -> list[tuple[str, Any, Any]]:
    # Whether epsilon was typed or a default changes no number.
    names = [f.name for f in fields(NormSpec) if f.name not in ("layout", "epsilon_given")]
    pairs = [(name, getattr(a.spec, name), getattr(b.spec, name)) for name in names]
    pairs.insert(0, ("layout", a.spec.layout.letters, b.spec.layout.letters))
    pairs.append(("dtype", a.source.dtype.newbyteorder("="), b.source.dtype.newbyteorder("=")))
    extents = [_fixed_extents(s) for s in (a, b)]
    pairs.append(("extents beside N of", extents[0], extents[1]))
    return pairs


def _fixed_extents(statistics: Statistics) -> tuple[int, ...]:
    batch = statistics.spec.layout.batch_axis
    return tuple(n for axis, n in enumerate(statistics.source.shape) if axis != batch)


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _joined_parts(given: Sequence[Named]) -> list[Named]:
    """Return the statistics of whole inputs, in the order in which their first part came."""
    together: dict[Any, list[Named]] = {}
    for number, named in enumerate(given):
        source = named.statistics.source
        key = (number,) if source.part is None else _input_of_part(source)
        together.setdefault(key, []).append(named)
    return [
        group[0] if group[0].statistics.source.part is None else _whole(group)
        for group in together.values()
    ]


def _input_of_part(source: SourceDescription) -> tuple[Any, ...]:
    """Return what tells inputs apart, wherever a node of a cluster has its copy of them."""
    inputs = tuple(
        (Path(str(entry.get("path"))).name, *(entry.get(k) for k in ("array", *_CONTENT)))
        for entry in source.inputs
    )
    assert source.part is not None
    return source.shape, source.part.of, inputs


_CONTENT = ("size", "fingerprint")


def _whole(parts: Sequence[Named]) -> Named:
    numbered: dict[int, Named] = {}
    doubled: list[str] = []
    for named in parts:
        part = named.statistics.source.part
        assert part is not None
        if part.number in numbered:
            doubled.append(f"{part} in {numbered[part.number].path} and {named.path}")
        numbered.setdefault(part.number, named)
    first = parts[0]
    assert first.statistics.source.part is not None
    of = first.statistics.source.part.of
    name = _input_name(first.statistics.source)
    if doubled:
        raise InputError(
            f"Parts of {name} were given twice: {_listing(doubled)}.", "Give each part once."
        )
    missing = [number for number in range(1, of + 1) if number not in numbered]
    if missing:
        ranges = _ranges(missing)
        raise InputError(
            f"{len(missing)} of the {of} parts of {name} missing: {ranges}.",
            f"Run them again, such as: normcli fit INPUT --part {missing[0]}/{of} -o STATS; "
            f"in SLURM: sbatch --array={ranges} JOB",
        )
    _require_tiling([numbered[number] for number in range(1, of + 1)], name)
    union = _added([numbered[number] for number in range(1, of + 1)])
    return Named(first.path, replace(union, source=replace(union.source, part=None)))


def _added(given: Sequence[Named]) -> Statistics:
    """Return the first with the moments of all, for the same groups."""
    first = given[0].statistics
    moments, exact = added(_moments(named.loaded()) for named in given)
    if not keeps_exact(first.spec, moments.count.size):
        exact = None  # As a fit of everything would leave them.
    return replace(first, moments=moments, exact=exact)


def _moments(statistics: Statistics) -> tuple[Moments, ExactMoments | None]:
    assert statistics.moments is not None
    return statistics.moments, statistics.exact


def _require_tiling(parts: Sequence[Named], name: str) -> None:
    """Refuse parts that were cut differently, by other versions or from other chunks."""
    reached = 0
    first = parts[0].statistics.source
    assert first.part is not None
    for named in parts:
        part = named.statistics.source.part
        assert part is not None
        if part.cell != first.part.cell or part.first != reached:
            raise InputError(
                f"{named.path} was cut otherwise than {parts[0].path}: cells {part.first} to "
                f"{part.stop} of {part.cell}, after {reached} cells of {first.part.cell}.",
                f"Fit all parts of {name} with one version of normcli.",
            )
        reached = part.stop
    cells = len(Grid(first.shape, first.part.cell))
    if reached != cells:
        raise InputError(
            f"The parts of {name} hold {reached} of its {cells} cells.",
            "Fit all parts with one version of normcli.",
        )


def _refuse_overlap(whole: Sequence[Named], observer: Observer) -> None:
    """Refuse an input that would be counted twice, and tell of one that may be a copy."""
    seen: dict[Any, str] = {}
    contents: dict[Any, str] = {}
    for named in whole:
        for entry in named.statistics.source.inputs:
            if entry.get("fingerprint") is None:
                continue  # Nothing tells what came through a pipe.
            key = tuple(entry.get(name) for name in ("path", "array", *_CONTENT))
            if key in seen:
                place = "/".join(str(part) for part in key[:2] if part)
                twice = (
                    f"in {named.path}"
                    if seen[key] == named.path
                    else f"in {seen[key]} and in {named.path}"
                )
                raise InputError(
                    f"{place} would be counted twice: it is {twice}.",
                    "Leave one of them out.",
                )
            seen[key] = named.path
            path = str(entry.get("path"))
            other = contents.setdefault(key[1:], path)
            if other != path:
                observer.warn(
                    f"{other} and {path} have the same size and the same content, as far as it "
                    "was sampled; if one is a copy of the other, its elements count twice"
                )


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
        union = _added(whole)
    elif spec.divided_axis == batch:
        raise InputError(
            f"{whole[0].path} holds statistics of batches, which are not merged.",
            "Merge statistics of a dataset, or of observations.",
        )
    else:
        # Statistics of observations: those of the next input follow.
        axis = spec.kept.index(batch)
        everything = [_moments(named.loaded())[0] for named in whole]
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
    )
    return replace(union, source=source, provenance=made)


def _input_name(source: SourceDescription) -> str:
    if not source.inputs:
        return "the input"
    name = Path(str(source.inputs[0].get("path"))).name
    inner = source.inputs[0].get("array")
    more = f" and {len(source.inputs) - 1} more" if len(source.inputs) > 1 else ""
    return (f"{name}/{inner}" if inner else name) + more


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as SLURM's ``--array`` takes them: ``1,4-7``."""
    texts: list[str] = []
    start = last = numbers[0]
    for number in [*numbers[1:], None]:
        if number is not None and number == last + 1:
            last = number
            continue
        texts.append(str(start) if start == last else f"{start}-{last}")
        if number is not None:
            start = last = number
    return ",".join(texts)


def _listing(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(items[:_LISTED]) + more
