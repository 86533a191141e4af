"""Zarr arrays opened with care, one by one or all of a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import zarr
from zarr.storage import LocalStore

from normcli.arrays.access import ArrayEntry
from normcli.arrays.files import read_error, require_folder
from normcli.arrays.rules import STRICT, InputRules
from normcli.arrays.zarr_codecs import bound
from normcli.arrays.zarr_describe import (
    describe,
)
from normcli.arrays.zarr_documents import (
    DOCUMENTS,
    ArrayDocument,
    group_attributes,
    is_array,
    read_document,
)
from normcli.arrays.zarr_files import files_below
from normcli.arrays.zarr_links import require_inside
from normcli.arrays.zarr_store import CheckedStore
from normcli.errors import InputError, NormcliError, TransientError
from normcli.retrying import storage_error
from normcli.zarr_loop import hush_zarr

ROOT_ATTR = "normcli"


def _share_cores() -> None:
    """Keep zarr's own threads from multiplying with those that blocks are worked on with.

    zarr decodes up to 10 chunks of each read at once, on 32 threads or more. With two blocks in
    flight on 2 cores, 4 at once on 2 threads fitted lz4 chunks 1.4 times and applied 2 times as
    fast. Settings that a user made are kept.
    """
    settings = {}
    if zarr.config.get("async.concurrency") == 10:
        settings["async.concurrency"] = 4
    if zarr.config.get("threading.max_workers") is None:
        settings["threading.max_workers"] = len(os.sched_getaffinity(0))
    zarr.config.set(settings)


if hasattr(os, "sched_getaffinity"):
    _share_cores()


def list_zarr(path: Path, rules: InputRules = STRICT) -> list[ArrayEntry]:
    """Return all arrays of a store, whatever their types are.

    Raises
    ------
    InputError
        When it is no store.
    SafetyError
        When metadata lie outside of the store, or ask for pickles.
    """
    require_folder(path)
    found = []
    marked = False
    for folder, folders, files in os.walk(path, onerror=_unlisted):
        marked = marked or any(name in files for name in DOCUMENTS)
        folders.sort()
        here = Path(folder)
        inner = "" if here == path else here.relative_to(path).as_posix()
        # A document that is damaged may be that of the array which is meant.
        if not is_array(path, here, files, rules):
            continue
        folders.clear()
        try:
            info = describe(_open_array(path, inner, rules))
        except InputError:
            if not inner:
                raise
            continue  # an array that this zarr does not know must not hide the others
        found.append(ArrayEntry(inner, info, _stored_bytes(here)))
    if not marked:
        raise InputError(f"{path} is a folder without Zarr metadata.")
    return found


def list_contents(path: Path) -> dict[str, bool]:
    """Return all that a store holds, by name, and whether each is an array.

    Arrays count even where they cannot be read; so do attributes of groups. Of the root, the mark
    of normcli does not count.

    Raises
    ------
    InputError
        When a document of a group cannot be read.
    """
    found: dict[str, bool] = {}
    for folder, folders, files in os.walk(path, onerror=_unlisted):
        here = Path(folder)
        inner = "" if here == path else here.relative_to(path).as_posix()
        try:
            array = is_array(path, here, files, STRICT)
        except InputError:
            array = True
        if array:
            folders.clear()
            found[inner] = True
        elif group_attributes(here) - ({ROOT_ATTR} if not inner else set()):
            found[f"attributes of {inner or '/'}"] = False
    return found


def _unlisted(error: OSError) -> NoReturn:
    """Raise what `os.walk` would pass over: an array in that folder might be the one meant."""
    raise read_error(str(error.filename), error) from error


def has_mark(path: Path) -> bool:
    """Whether normcli wrote the store as a container of several arrays."""
    try:
        hush_zarr()
        group = zarr.open_group(LocalStore(path, read_only=True), mode="r", use_consolidated=False)
        return ROOT_ATTR in group.attrs
    except Exception:  # whatever else is there, normcli did not write it
        return False


def _open_array(path: Path, inner: str, rules: InputRules = STRICT) -> zarr.Array:
    name = f"{path}/{inner}" if inner else str(path)
    return open_checked(path, inner, name, rules)[0]


def open_checked(
    path: Path, inner: str, name: str, rules: InputRules
) -> tuple[zarr.Array, ArrayDocument]:
    """Return an array with what was checked of its metadata, which zarr reads after that."""
    require_folder(path)
    folder = path / inner
    require_inside(path, folder, name, rules)
    if not any(os.path.lexists(folder / document) for document in ("zarr.json", ".zarray")):
        raise InputError(f"{path} has no array {inner or 'at its root'}.", _choices(path))
    document = read_document(path, folder, name, rules)
    try:
        store = CheckedStore(path, read_only=True)
        hush_zarr()
        array = zarr.open_array(store, path=inner, mode="r", zarr_format=document.version)
        bound(array)
    except NormcliError:
        raise
    except Exception as error:  # malformed metadata makes zarr raise nearly anything
        raise unreadable(name, error) from error
    return array, document


def _choices(path: Path) -> str | None:
    try:
        names = [entry.path for entry in list_zarr(path) if entry.path]
    except InputError:
        return None
    return f"It holds {', '.join(names[:20])}." if names else "It holds no array."


def _stored_bytes(folder: Path) -> int:
    return sum(
        entry.stat(follow_symlinks=False).st_size
        for _, entry in files_below(folder)
        if entry.name not in DOCUMENTS
    )


def unreadable(name: str, error: Exception) -> NormcliError:
    """Return the error for what zarr raised, in one line."""
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    message = f"{name} could not be read as Zarr: {reason}."
    found = storage_error(name, error)
    return found if isinstance(found, TransientError) else InputError(message)
