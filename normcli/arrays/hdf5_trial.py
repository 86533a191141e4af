"""What a child process does with an HDF5 file, before this process does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normcli.arrays.hdf5 import Hdf5Source
from normcli.arrays.hdf5_listing import list_datasets
from normcli.arrays.rules import InputRules
from normcli.domain.grid import Block

# The first chunk is decoded too, unless it is large.
_MOST_READ = 64 << 20


def try_listing(path: str) -> None:
    """List the datasets of a file."""
    list_datasets(Path(path))


def try_dataset(path: str, inner: str, flags: list[Any]) -> None:
    """Open a dataset as a run does, and read its first chunk."""
    source = Hdf5Source(path, inner, InputRules(*flags))
    info = source.info
    extents = [min(n, c) for n, c in zip(info.shape, info.chunks or info.shape, strict=True)]
    nbytes = info.dtype.itemsize
    for extent in extents:
        nbytes *= extent
    if nbytes > _MOST_READ:
        extents = [min(1, n) for n in extents]
        if info.chunks is not None:
            return  # one element costs its whole chunk
    source.read(Block(0, (0,) * len(extents), tuple(extents)))
