"""Statistics that must not be merged: of other settings, or of what was counted before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from normcli.api.merge_parts import (
    CONTENT,
)
from normcli.api.named_statistics import Named
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import (
    Statistics,
)
from normcli.engine.events import Observer
from normcli.errors import InputError


def require_alike(given: Sequence[Named]) -> None:
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


def require_units(given: Sequence[Named], observer: Observer) -> None:
    """Refuse statistics in different units, and tell of those that name none."""
    units = [named.statistics.source.units for named in given]
    known = [i for i, unit in enumerate(units) if unit is not None]
    for i in known[1:]:
        if units[i] != units[known[0]]:
            raise InputError(
                f"{given[known[0]].path} is of data in {units[known[0]]}, but {given[i].path} of "
                f"data in {units[i]}.",
                "Convert the data to one unit and fit again.",
            )
    if known and len(known) < len(units):
        without = next(i for i, unit in enumerate(units) if unit is None)
        observer.warn(
            f"{given[without].path} names no units; {given[known[0]].path} is of data in "
            f"{units[known[0]]}"
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


def input_key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells an input from another: its place, and a sample of its content."""
    return tuple(entry.get(name) for name in ("path", "array", *CONTENT))


def input_place(entry: Mapping[str, Any]) -> str:
    """Return file and array of an input, for people."""
    return "/".join(str(entry[name]) for name in ("path", "array") if entry.get(name))


def refuse_overlap(whole: Sequence[Named], observer: Observer) -> None:
    """Refuse an input that would be counted twice, and tell of one that may be a copy."""
    seen: dict[Any, str] = {}
    contents: dict[Any, str] = {}
    for named in whole:
        for entry in named.statistics.source.inputs:
            if entry.get("fingerprint") is None:
                continue  # Nothing tells what came through a pipe.
            key = input_key(entry)
            if key in seen:
                place = input_place(entry)
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
