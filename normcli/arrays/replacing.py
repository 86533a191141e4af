"""What ``--overwrite`` replaces among arrays: an array by an array, and with it nothing else.

A container is written anew as a whole, so all that it holds must be what is replaced: no other
array, no link, no attributes of groups, no member or file that is no array. Statistics that normcli
wrote give way to statistics. An empty file or folder is nobody's. What cannot be read stays.

Files of parameters follow the same rule in ``bundles/replacing.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from normcli.arrays.manifest import is_manifest
from normcli.arrays.paths import ArrayPath
from normcli.errors import InputError, UsageError
from normcli.publishing import is_empty, refuse_existing, refuse_unwritable

_TOLD = 5


def refuse_losses(path: ArrayPath, names: set[str], several: bool, overwrite: bool) -> None:
    """Refuse to replace an output where that would lose more than the arrays of these names.

    Parameters
    ----------
    path : ArrayPath
        The output.
    names : set of str
        Paths of the arrays that are written, inside of it.
    several : bool
        Whether they are statistics, which replace earlier ones whatever arrays those have.
    overwrite : bool
        Whether an earlier output may be replaced.

    Raises
    ------
    UsageError
        When it exists and may not be replaced, cannot be read, or holds something else.
    """
    target = path.container
    if not os.path.lexists(target):
        return
    refuse_existing(target, overwrite)
    if not target.exists() or is_empty(target):
        return
    try:
        held = _contents(path)
    except InputError as error:
        raise UsageError(
            f"{target} exists and cannot be read, so it is not replaced.",
            "Remove it first, or choose another -o.",
        ) from error
    others = [name for name in held if name not in names]
    if others and not (several and len(others) < len(held) and _has_mark(path)):
        what = "arrays" if all(held[name] for name in others) else "things"
        raise UsageError(
            f"{target} holds other {what}, which would be lost: {', '.join(others[:_TOLD])}.",
            "Choose another -o.",
        )


def refuse_other_than_manifest(path: Path, overwrite: bool) -> None:
    """Raise UsageError when a file exists that a manifest must not replace."""
    refuse_unwritable(path, overwrite)
    if path.exists() and not is_empty(path) and not is_manifest(path):
        raise UsageError(
            f"{path} holds something else than a manifest, which --overwrite does not replace.",
            "Choose another -o, or remove it.",
        )


def _contents(path: ArrayPath) -> dict[str, bool]:
    """Return all that a container holds by name, and whether each is an array."""
    if path.format == "npy":
        from normcli.arrays.npy import npy_header

        npy_header(path.container)
        return {}
    if path.format == "hdf5":
        from normcli.arrays.hdf5_listing import list_contents
    elif path.format == "zarr":
        from normcli.arrays.zarr_open import list_contents
    else:
        from normcli.arrays.npz import list_contents
    return list_contents(path.container)


def _has_mark(path: ArrayPath) -> bool:
    """Whether the container is a set of statistics that normcli itself wrote."""
    if path.format == "hdf5":
        from normcli.arrays.hdf5_listing import has_mark
    elif path.format == "zarr":
        from normcli.arrays.zarr_open import has_mark
    else:
        from normcli.arrays.npz import has_mark
    return has_mark(path.container)
