"""Each HDF5 input is read a little in a child process first, where it can do no harm."""

from __future__ import annotations

from pathlib import Path

from normcli.arrays.rules import InputRules
from normcli.isolation import require_survival, start_helper

# By name, since only the helper needs to import it.
_MODULE = "normcli.arrays.hdf5_trial"


def start() -> None:
    """Start the helper early, so that its imports and those of this process go side by side."""
    start_helper(_MODULE)


def require_listable(path: Path) -> None:
    """Raise where listing the datasets of a file would kill this process or never end."""
    require_survival(str(path), _MODULE, "try_listing")


def require_readable(path: Path, inner: str, rules: InputRules) -> None:
    """Raise where opening a dataset would kill this process or never end."""
    flags = [rules.allow_external_refs, rules.allow_symlinks, rules.missing]
    require_survival(str(path), _MODULE, "try_dataset", inner=inner, flags=flags)
