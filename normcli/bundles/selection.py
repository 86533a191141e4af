"""Which arrays of a file are wanted: a file is opened once, and only those are read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

from normcli.errors import InputError

# Receives the names of all arrays of a file; returns those to read.
Choose = Callable[[tuple[str, ...]], Iterable[str]]

_LISTED = 8


def everything(names: tuple[str, ...]) -> tuple[str, ...]:
    """Choose every array."""
    return names


def split_name(name: str) -> tuple[str, str]:
    """Return the parent and the leaf of a name such as ``layers.3.norm.weight`` or ``a/b``."""
    parts = re.split(r"[./](?=[^./]*\Z)", name, maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else ("", name)


def under_prefix(names: tuple[str, ...], prefix: str, path: str) -> dict[str, str]:
    """Return the arrays below `prefix`: their names from there on, and their full names.

    Parameters
    ----------
    names : tuple of str
        All arrays of the file.
    prefix : str
        A layer (``layers.3.norm``), a group (``model/norm``) or one array; empty for all.
    path : str
        The file, for the message.

    Raises
    ------
    InputError
        When nothing has that prefix; the hint lists prefixes that something has.
    """
    if not prefix:
        return {name: name for name in names}
    if prefix in names:
        return {split_name(prefix)[1]: prefix}
    trimmed = prefix.rstrip("./")
    found = {
        name[len(trimmed) + 1 :]: name
        for name in names
        if name.startswith((trimmed + ".", trimmed + "/"))
    }
    if not found:
        parents = {split_name(name)[0] for name in names} - {""}
        raise InputError(
            f"{path} holds nothing under {prefix!r}.",
            f"It holds {listed(parents or names, close_to=prefix)}.",
        )
    return found


def listed(names: Iterable[str], close_to: str = "", first: Iterable[str] = ()) -> str:
    """Return names as one short list for a message, `first` or those `close_to` a word first."""
    ahead = set(first)
    ordered = sorted(names, key=lambda name: (name not in ahead, name))
    if close_to:
        near = difflib.get_close_matches(close_to, ordered, n=_LISTED, cutoff=0.5)
        ordered = near + [name for name in ordered if name not in near]
    shown = ", ".join(repr(name) for name in ordered[:_LISTED])
    more = len(ordered) - _LISTED
    return (shown or "nothing") + (f" and {more} more" if more > 0 else "")
