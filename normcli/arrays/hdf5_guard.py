"""Finds datasets in HDF5 files without leaving the file.

HDF5 follows external links, external raw storage and virtual datasets to any file of the machine,
silently. Nothing here opens a link before its kind is known.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import h5py

from normcli.arrays.hdf5_names import key_of, text_of
from normcli.arrays.rules import STRICT, InputRules
from normcli.errors import InputError, SafetyError

_MAX_LINKS = 40
_HINT = (
    "Copy the data into one file (h5py's Group.copy with expand_external), or give "
    "--allow-external-refs if you trust it."
)


def safe_dataset(
    file: h5py.File, path: str, name: str, links: int = 0, rules: InputRules = STRICT
) -> h5py.Dataset:
    """Return the dataset at `path`, if all of it lies in this file or may lie in others.

    Parameters
    ----------
    file : h5py.File
        The open file.
    path : str
        Path of the dataset.
    name : str
        What messages call the file.
    links : int
        How many soft links and virtual sources led here.
    rules : InputRules
        Whether other files may be followed into. Even then they must be regular files.

    Raises
    ------
    InputError
        When there is no such dataset.
    SafetyError
        When it leads out of the file.
    """
    if links > _MAX_LINKS:
        raise InputError(f"{name}/{path} goes through more than {_MAX_LINKS} links.")
    current: h5py.Group | h5py.Dataset = file
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for number, part in enumerate(parts):
        link = None
        if isinstance(current, h5py.Group) and part != "..":
            link = _link(current, part)
        if link is None:
            names = sorted(map(text_of, current)) if isinstance(current, h5py.Group) else []
            held = ", ".join(names[:20])
            where = text_of(current.name) if number else "It"
            hint = f"{where} holds {held or 'nothing'}."
            raise InputError(f"{name} has no dataset {path}.", hint)
        if isinstance(link, h5py.SoftLink):
            base = "" if text_of(link.path).startswith("/") else text_of(current.name).rstrip("/")
            target = _joined(base, text_of(link.path), *parts[number + 1 :])
            return safe_dataset(file, target, name, links + 1, rules)
        if isinstance(link, h5py.ExternalLink):
            if not rules.allow_external_refs:
                raise SafetyError(
                    f"{name}/{path} is a link to another file, {link.filename!r}.",
                    f"Name that file itself. {_HINT}",
                )
            _require_regular(file, link.filename, f"{name}/{path}")
            # From here on the other file counts, with links of its own.
            other = current[key_of(part)].file
            target = _joined(link.path, *parts[number + 1 :])
            return safe_dataset(other, target, name, links + 1, rules)
        if not isinstance(link, h5py.HardLink):
            raise SafetyError(f"{name}/{path} is a user-defined link, which is not followed.")
        current = current[key_of(part)]
    if not isinstance(current, h5py.Dataset):
        raise InputError(f"{name}/{path} is no dataset.")
    _judge_storage(file, current, name, path, links, rules)
    return current


def _link(group: h5py.Group, name: str) -> object | None:
    """Return what kind of link a group has under a name, which is not followed."""
    key = key_of(name)
    if isinstance(key, str):
        return group.get(key, getlink=True)
    # h5py's own look decodes the name, which is no UTF-8.
    if not group.id.links.exists(key):
        return None
    return h5py.HardLink() if group.id.links.get_info(key).type == h5py.h5l.TYPE_HARD else key


def _joined(*parts: str) -> str:
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def _judge_storage(
    file: h5py.File, dataset: h5py.Dataset, name: str, path: str, links: int, rules: InputRules
) -> None:
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_external_count()):
        target = os.fsdecode(plist.get_external(number)[0])
        if not rules.allow_external_refs:
            raise SafetyError(f"{name}/{path} keeps its data in another file, {target!r}.", _HINT)
        _require_regular(file, target, f"{name}/{path}")
    if plist.get_layout() != h5py.h5d.VIRTUAL:
        return
    for number in range(plist.get_virtual_count()):
        target = plist.get_virtual_filename(number)
        source = plist.get_virtual_dsetname(number)
        if target == "." and "%" not in source:
            # A source in the same file may itself lead out of it.
            safe_dataset(file, source, name, links + 1, rules)
            continue
        if not rules.allow_external_refs:
            raise SafetyError(
                f"{name}/{path} is a virtual dataset over another file, {target!r}.", _HINT
            )
        if target != "." and "%" not in target:
            # HDF5 reads a source that is not there as the fill value, and says nothing.
            _require_regular(file, target, f"{name}/{path}")


def _require_regular(file: h5py.File, target: str, name: str) -> None:
    """Require another file to be there and no pipe or device, where HDF5 would wait for ever."""
    for folder in (Path(file.filename).absolute().parent, Path.cwd()):
        place = folder / target
        try:
            status = os.stat(place)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} takes its data from {target!r}, which is no regular file.")
        return
    raise InputError(f"{name} takes its data from {target!r}, which does not exist.")
