"""What an HDF5 file holds: its datasets, their chunks, and the mark of normcli."""

from __future__ import annotations

from pathlib import Path

import h5py

from normcli.arrays.access import ArrayEntry
from normcli.arrays.hdf5_describe import (
    describe,
)
from normcli.arrays.hdf5_guard import safe_dataset
from normcli.arrays.hdf5_open import (
    FAILURES,
    open_file,
    require_hdf5,
    unreadable,
)
from normcli.arrays.hdf5_places import element_spans
from normcli.arrays.hdf5_probe import require_listable
from normcli.arrays.hdf5_walk import walk
from normcli.retrying import raise_storage_error

ROOT_ATTR = "normcli"


def list_datasets(path: Path) -> list[ArrayEntry]:
    """Return all datasets of a file, without following a link."""
    entries: list[ArrayEntry] = []

    require_listable(require_hdf5(path))
    file = open_file(path)
    try:
        for found in walk(file):
            node = found.node
            if found.first and isinstance(node, h5py.Dataset) and node.shape is not None:
                try:
                    info = describe(node)
                except (TypeError, ValueError) as error:  # a type that numpy has no name for
                    raise_storage_error(str(path), error)
                    continue
                entries.append(ArrayEntry(found.path, info, node.id.get_storage_size()))
    except FAILURES as error:
        raise unreadable(str(path), error) from error
    finally:
        file.close()
    return entries


def list_contents(path: Path) -> dict[str, bool]:
    """Return all that a file holds, by name, and whether each is a dataset.

    Besides datasets of any type these are links to elsewhere, named types, and attributes of
    groups; groups themselves hold nothing. Of the root, the mark of normcli does not count.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    found: dict[str, bool] = {}

    require_listable(require_hdf5(path))
    file = open_file(path)
    try:
        for entry in walk(file):
            node = entry.node
            if not isinstance(node, h5py.Group):
                found[entry.path] = isinstance(node, h5py.Dataset)
            elif len(node.attrs):
                found[f"attributes of {entry.path}"] = False
        if set(file.attrs) - {ROOT_ATTR}:
            found["attributes of /"] = False
    except FAILURES as error:
        raise unreadable(str(path), error) from error
    finally:
        file.close()
    return found


def chunk_spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and bytes of every stored chunk of a file, by its key.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    spans = {}
    file = open_file(path)
    try:
        for entry in list_datasets(path):
            dataset = safe_dataset(file, entry.path, str(path))
            if dataset.chunks is not None:
                for key, offset, nbytes in element_spans(dataset):
                    spans[key] = (offset, nbytes)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise unreadable(str(path), error) from error
    finally:
        file.close()
    return spans


def has_mark(path: Path) -> bool:
    """Whether normcli wrote the file as a container of several arrays."""
    require_listable(require_hdf5(path))
    file = open_file(path)
    try:
        return ROOT_ATTR in file.attrs
    except FAILURES as error:
        raise unreadable(str(path), error) from error
    finally:
        file.close()
