"""Parts of one input put together, once it is proven that they tile it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from normcli.api.named_statistics import Named, added_up
from normcli.domain.grid import Grid
from normcli.domain.statistics import (
    SourceDescription,
)
from normcli.errors import InputError

_LISTED = 20


def joined_parts(given: Sequence[Named]) -> list[Named]:
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
        (Path(str(entry.get("path"))).name, *(entry.get(k) for k in ("array", *CONTENT)))
        for entry in source.inputs
    )
    assert source.part is not None
    return source.shape, source.part.of, inputs


CONTENT = ("size", "fingerprint")


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
    union = added_up([numbered[number] for number in range(1, of + 1)])
    return Named(first.path, replace(union, source=replace(union.source, part=None)))


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
