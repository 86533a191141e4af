"""One listing of a Zarr array: which chunks are stored, and that each is a plain, whole file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.files import read_error
from normcli.arrays.missing import wants_map
from normcli.arrays.rules import InputRules
from normcli.arrays.zarr_documents import DOCUMENTS, ArrayDocument
from normcli.arrays.zarr_links import require_link_inside
from normcli.arrays.zarr_shards import index_bytes, inner_chunks, read_index, standard_index
from normcli.errors import InputError


@dataclass(frozen=True)
class StoreListing:
    """What the folder of an array holds.

    Attributes
    ----------
    stored : int or ndarray of bool
        How many of its chunks are stored, or which, on the grid of inner chunks.
    largest : int
        Bytes of the largest file of chunks.
    """

    stored: int | np.ndarray
    largest: int


def list_store(
    root: Path, folder: Path, document: ArrayDocument, name: str, rules: InputRules
) -> StoreListing:
    """Look at every file of an array once: no link out, no pipe, no empty chunk; count them.

    Raises
    ------
    InputError
        For a chunk that is empty, a folder, a pipe or a device, or a shard that is cut.
    SafetyError
        For a link that leads out of the store.
    """
    inner = inner_chunks(document)
    counts = tuple(-(-n // c) for n, c in zip(document.shape, inner, strict=True))
    per_file = tuple(c // i for c, i in zip(document.chunks, inner, strict=True))
    present = np.zeros(counts, bool) if wants_map(prod(counts), rules) else None
    stored = largest = 0
    for key, path, status in _walk(root, folder, rules, len(document.shape) + 1):
        index = document.index_of(key)
        if index is None:
            continue
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: the chunk {key} is a folder.")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name}: the chunk {key} is a pipe, a device or a socket.")
        if not status.st_size:
            raise InputError(
                f"{name}: the chunk {key} is empty (0 bytes).",
                "A write was interrupted: copy the store again, or remove that file to have the "
                "chunk read as the fill value.",
            )
        largest = max(largest, status.st_size)
        place = tuple(slice(i * p, (i + 1) * p) for i, p in zip(index, per_file, strict=True))
        if document.sharding is None:
            inside: Any = True
            stored += 1
        else:
            inside = _stored_in_shard(path, status.st_size, document, per_file, name, key)
            clipped = tuple(slice(0, n - s.start) for n, s in zip(counts, place, strict=True))
            inside = inside[clipped]
            stored += int(np.count_nonzero(inside))
        if present is not None:
            present[place] = inside
    return StoreListing(stored if present is None else present, largest)


def _walk(
    root: Path, folder: Path, rules: InputRules, depth: int, key: str = ""
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield key, path and status of everything below a folder, files and folders."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not key and entry.name in DOCUMENTS:
                    continue
                if entry.is_symlink():
                    require_link_inside(root, Path(entry.path), rules)
                below = f"{key}/{entry.name}" if key else entry.name
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    if entry.is_symlink():
                        raise InputError(
                            f"{entry.path} is a link to {os.readlink(entry.path)!r}, which does "
                            "not exist."
                        ) from None
                    continue  # removed meanwhile
                yield below, entry.path, status
                if depth and stat.S_ISDIR(status.st_mode):
                    yield from _walk(root, Path(entry.path), rules, depth - 1, below)
    except OSError as error:
        raise read_error(str(folder), error) from error


def _stored_in_shard(
    path: str,
    size: int,
    document: ArrayDocument,
    per_file: tuple[int, ...],
    name: str,
    key: str,
) -> np.ndarray:
    """Return which inner chunks the index of a shard knows."""
    assert document.sharding is not None
    if not standard_index(document.sharding):
        return np.ones(per_file, bool)
    length = index_bytes(document)
    if size < length:
        raise InputError(
            f"{name}: the shard {key} is cut: it has {size} bytes, and its index alone {length}.",
            "Copy the store again.",
        )
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            table = read_index(file, size, document)
        finally:
            os.close(file)
    except OSError as error:
        raise read_error(path, error) from error
    if len(table) < prod(per_file):
        raise InputError(f"{name}: the shard {key} was cut while it was read.")
    known = (table != np.iinfo(np.uint64).max).any(axis=1)
    starts, lengths = table[:, 0], table[:, 1]
    # In two comparisons, since the sum of both could wrap around.
    outside = known & ((starts > size) | (lengths > size))
    outside |= known & ~outside & (starts + lengths > size)
    if outside.any():
        raise InputError(
            f"{name}: the shard {key} is damaged: its index points beyond its {size} bytes.",
            "Copy the store again.",
        )
    return known.reshape(per_file)
