"""What ``--overwrite`` replaces: what the same command could have written, and nothing else.

Files that have room for a mark say what they are: statistics, a scale and a bias, a single value.
Formats of other programs have none, so there the names of the arrays decide: a file is replaced
that holds nothing but one layer. An empty file is nobody's. What cannot be read is not known to be
ours, and stays.

Containers of arrays follow the same rule in ``arrays/replacing.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from normcli.bundles.formats import read_bundle
from normcli.bundles.npy_file import stored_shape
from normcli.errors import TransientError, UsageError
from normcli.publishing import is_empty, refuse_existing

# Variables of one normalization layer, as PyTorch and Keras name them.
LAYER_NAMES = frozenset(
    (
        *("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
        *("gamma", "beta", "moving_mean", "moving_variance"),
    )
)


def refuse_foreign(
    path: str | os.PathLike[str], overwrite: bool, what: str, is_own: Callable[[str], bool]
) -> None:
    """Refuse to replace a file that this command cannot have written.

    Parameters
    ----------
    path : str
        The output.
    overwrite : bool
        Whether an existing one may be replaced; without it, any existing one is refused.
    what : str
        What is written, for the message: ``statistics``.
    is_own : callable
        Receives the name of an existing file; returns whether it holds such a thing and nothing
        else. A file that it cannot read is another's.

    Raises
    ------
    UsageError
        When it holds something else, or exists and may not be replaced.
    TransientError
        When storage fails again and again, so that it is not known.
    """
    name = os.fspath(path)
    target = Path(name)
    refuse_existing(target, overwrite)
    # A broken link is replaced, not what it names; os.replace() does not follow it either.
    if not target.exists() or is_empty(target):
        return
    try:
        own = is_own(name)
    except TransientError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, ImportError):
            raise  # A package that is missing would be needed to write, too.
        own = False  # Whatever is there, normcli did not write it.
    if not own:
        raise UsageError(
            f"{name} holds something else than {what}, which --overwrite does not replace.",
            "Choose another name, or remove it.",
        )


def holds_marked(path: str, schema: str, known: Iterable[str]) -> bool:
    """Return whether a file bears the mark of a schema, and holds no array but the known ones."""
    names, attrs = names_inside(path)
    return attrs.get("schema") == schema and names <= set(known)


def holds_layer(path: str) -> bool:
    """Return whether a file holds the arrays of one normalization layer, and no other."""
    names, _ = names_inside(path)
    return bool(names) and names <= LAYER_NAMES


def holds_array(path: str, names: Iterable[str], shape: tuple[int, ...]) -> bool:
    """Return whether a file holds one array, by one of these names, and no other.

    An .npy file has neither a mark nor a name: there the shape has to be that of the new array.
    """
    if Path(path).suffix.lower() == ".npy":
        return stored_shape(path) == shape
    held, _ = names_inside(path)
    return len(held) == 1 and held <= set(names)


def names_inside(path: str) -> tuple[set[str], dict[str, Any]]:
    """Return the names of all arrays of a file, and its attributes; no array is read."""
    names: set[str] = set()

    def note(found: tuple[str, ...]) -> list[str]:
        names.update(found)
        return []

    return names, dict(read_bundle(path, note).attrs)
