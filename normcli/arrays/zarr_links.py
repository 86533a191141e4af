"""Links and odd files in a Zarr store, found before anything opens them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from normcli.arrays.files import read_error
from normcli.arrays.rules import InputRules
from normcli.errors import InputError, SafetyError

_MAX_DOCUMENT = 64 << 20


def require_inside(root: Path, folder: Path, name: str, rules: InputRules) -> None:
    """Raise SafetyError where a folder is a link out of the store."""
    if rules.allow_symlinks:
        return
    if not folder.resolve().is_relative_to(root.resolve()):
        raise SafetyError(
            f"{name} is a link out of the store, to {str(folder.resolve())!r}.",
            "Name the target itself, or give --allow-symlinks.",
        )


def require_document(root: Path, path: Path, rules: InputRules) -> None:
    """Require a document to be a regular file inside of the store, before it is opened."""
    if path.is_symlink():
        require_link_inside(root, path, rules)
    try:
        status = os.stat(path)
    except OSError as error:
        raise read_error(str(path), error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is no regular file.")
    if not status.st_size:
        raise InputError(f"{path} is empty.", "A write was interrupted: copy the store again.")
    if status.st_size > _MAX_DOCUMENT:
        raise SafetyError(f"{path} has {status.st_size} bytes, too many for metadata.")


def require_link_inside(root: Path, path: Path, rules: InputRules) -> None:
    """Raise SafetyError where a symbolic link leads out of the store."""
    if rules.allow_symlinks:
        return
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root.resolve()):
        raise SafetyError(
            f"{path} is a symbolic link out of the store, to {str(target)!r}.",
            "Copy the store with cp -rL, or give --allow-symlinks if you trust it.",
        )
