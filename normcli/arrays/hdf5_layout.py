"""The datasets of an HDF5 file in the making: created by HDF5, filled around it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from normcli.arrays.hdf5_disk import DiskFile
from normcli.arrays.hdf5_encode import ChunkEncoder, memory_file
from normcli.arrays.hdf5_names import key_of
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Grid

# What HDF5 may use of its newer formats. From 1.10 on metadata have checksums, and a file whose
# writer died is refused instead of read as zeros.
VERSIONS = {"1.8": ("earliest", "v108"), "1.10": ("v110", "v110")}


def lay_out(
    path: Path,
    version: str,
    arrays: Mapping[str, ArrayInfo],
    encoders: Mapping[str, ChunkEncoder],
) -> None:
    """Create a file with all datasets, which have places and no elements.

    Parameters
    ----------
    path : Path
        The file, which must not exist.
    version : {"1.8", "1.10"}
        The oldest HDF5 that shall read it.
    arrays : mapping of str to ArrayInfo
        The arrays, by their paths in the file.
    encoders : mapping of str to ChunkEncoder
        Those of chunked arrays, all of one stored size.

    Raises
    ------
    OSError
        When the file system refuses.
    """
    with (
        DiskFile(path, create=True) as disk,
        h5py.File(disk, "w", libver=VERSIONS[version]) as file,
    ):
        for inner, info in arrays.items():
            dataset = create_dataset(file, inner, info)
            if inner in encoders:
                _allocate(dataset, encoders[inner], disk)


def create_dataset(file: h5py.File, path: str, info: ArrayInfo) -> h5py.Dataset:
    """Create a dataset with its attributes; a contiguous one gets its place at once."""
    if is_chunked(info):
        options = {name: value for name, value in info.codecs.items() if value is not None}
        # HDF5 refuses chunks larger than the extent of a fixed axis.
        options["chunks"] = tuple(map(min, info.chunks or (), info.shape))
        # What one flipped bit does to a chunk, every reader notices.
        options["fletcher32"] = True
        dataset = _parent(file, path).create_dataset(
            key_of(path.rsplit("/", 1)[-1]), info.shape, info.dtype, **options
        )
    else:
        dataset = _create_contiguous(file, path, info)
    for dim, label in zip(dataset.dims, info.dims or (), strict=False):
        if label:
            dim.label = label
    for name, value in info.attrs.items():
        _set_attr(dataset, name, value)
    return dataset


def is_chunked(info: ArrayInfo) -> bool:
    """Whether the elements of an array are stored in chunks."""
    return bool(info.chunks and info.ndim and all(info.shape))


def encoder_of(path: str, info: ArrayInfo) -> ChunkEncoder:
    """Return what makes the stored chunks of an array."""
    with memory_file() as file:
        return ChunkEncoder.of(create_dataset(file, path, info))


def _create_contiguous(file: h5py.File, path: str, info: ArrayInfo) -> h5py.Dataset:
    # h5py's own way drops these settings for a scalar.
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    space = h5py.h5s.create_simple(info.shape) if info.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(info.dtype, logical=True)
    parent, name = _parent(file, path).id, os.fsencode(path.rsplit("/", 1)[-1])
    return h5py.Dataset(h5py.h5d.create(parent, name, kind, space, settings))


def _parent(file: h5py.File, path: str) -> h5py.Group:
    """Return the group of a dataset, without the time of its making: equal runs, equal bytes."""
    group: h5py.Group = file
    for part in path.split("/")[:-1]:
        name = key_of(part)
        if not group.id.links.exists(os.fsencode(part)):
            settings = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            settings.set_obj_track_times(False)
            h5py.h5g.create(group.id, os.fsencode(part), gcpl=settings)
        group = group[name]
    return group


def _allocate(dataset: h5py.Dataset, encoder: ChunkEncoder, disk: DiskFile) -> None:
    assert encoder.stored_bytes is not None
    nothing = np.zeros(encoder.stored_bytes, np.uint8)
    disk.leave_out(nothing)
    for chunk in Grid(dataset.shape, dataset.chunks):
        dataset.id.write_direct_chunk(chunk.start, nothing, 0)


def _set_attr(dataset: h5py.Dataset, name: str, value: Any) -> None:
    if value is None:
        return
    try:
        dataset.attrs[name] = value
    except (TypeError, ValueError):  # nested or mixed values, which HDF5 has no type for
        dataset.attrs[name] = json.dumps(value)
