"""Finds datasets in HDF5 files without leaving the file.

HDF5 follows external links, external raw storage and virtual datasets to any file of the machine,
silently. Nothing here opens a link before its kind is known.
"""

from __future__ import annotations

import h5py

from normcli.errors import InputError, SafetyError

_MAX_LINKS = 40
_HINT = "Copy the data into one file: h5repack, or h5py's Group.copy with expand_external."


def safe_dataset(file: h5py.File, path: str, name: str, links: int = 0) -> h5py.Dataset:
    """Return the dataset at `path`, if all of it lies in this file.

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
            link = current.get(part, getlink=True)  # does not follow
        if link is None:
            held = ", ".join(sorted(current)[:20]) if isinstance(current, h5py.Group) else ""
            where = current.name if number else "It"
            hint = f"{where} holds {held or 'nothing'}."
            raise InputError(f"{name} has no dataset {path}.", hint)
        if isinstance(link, h5py.SoftLink):
            base = "" if link.path.startswith("/") else current.name.rstrip("/")
            rest = "/".join(parts[number + 1 :])
            return safe_dataset(file, f"{base}/{link.path}/{rest}", name, links + 1)
        if isinstance(link, h5py.ExternalLink):
            raise SafetyError(
                f"{name}/{path} is a link to another file, {link.filename!r}.",
                f"Name that file itself. {_HINT}",
            )
        if not isinstance(link, h5py.HardLink):
            raise SafetyError(f"{name}/{path} is a user-defined link, which is not followed.")
        current = current[part]
    if not isinstance(current, h5py.Dataset):
        raise InputError(f"{name}/{path} is no dataset.")
    _refuse_foreign_storage(file, current, name, path, links)
    return current


def _refuse_foreign_storage(
    file: h5py.File, dataset: h5py.Dataset, name: str, path: str, links: int
) -> None:
    plist = dataset.id.get_create_plist()
    if plist.get_external_count():
        target = plist.get_external(0)[0]
        raise SafetyError(f"{name}/{path} keeps its data in another file, {target!r}.", _HINT)
    if plist.get_layout() != h5py.h5d.VIRTUAL:
        return
    for number in range(plist.get_virtual_count()):
        target = plist.get_virtual_filename(number)
        source = plist.get_virtual_dsetname(number)
        if target != "." or "%" in source:
            raise SafetyError(
                f"{name}/{path} is a virtual dataset over another file, {target!r}.", _HINT
            )
        # A source in the same file may itself lead out of it.
        safe_dataset(file, source, name, links + 1)
