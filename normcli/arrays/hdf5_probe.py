"""Each HDF5 input is read a little in a child process first, where it can do no harm."""

from __future__ import annotations

from pathlib import Path

from normcli.arrays.rules import InputRules
from normcli.isolation import require_survival

# By name, since it imports the modules that call these.
_MODULE = "normcli.arrays.hdf5_trial"


def require_listable(path: Path) -> None:
    """Raise where listing the datasets of a file would kill this process or never end."""
    require_survival(str(path), _MODULE, "try_listing")


def require_readable(path: Path, inner: str, rules: InputRules) -> None:
    """Raise where opening a dataset would kill this process or never end."""
    flags = [rules.allow_external_refs, rules.allow_symlinks, rules.missing]
    require_survival(str(path), _MODULE, "try_dataset", inner=inner, flags=flags)
