"""Which chunks of an HDF5 dataset are stored."""

from __future__ import annotations

from math import prod
from typing import Any

import h5py
import numpy as np

from normcli.arrays.missing import MissingChunks, counted, refuse_huge_chunk, wants_map
from normcli.arrays.rules import InputRules
from normcli.domain.array_info import ArrayInfo


def count_chunks(
    dataset: h5py.Dataset, info: ArrayInfo, name: str, rules: InputRules
) -> MissingChunks:
    """Count the chunks of a dataset that are not stored.

    A dataset without chunks counts as one. What a virtual dataset is made of is not known.

    Raises
    ------
    SafetyError
        When a chunk is far larger than everything that is stored.
    DataPolicyError
        When chunks are missing that must not be.
    """
    if dataset.is_virtual or not dataset.size:
        return MissingChunks()
    stored_bytes = dataset.id.get_storage_size()
    if info.chunks is None:
        there = 1 if stored_bytes or dataset.external else 0
        return counted(name, info, info.shape, there, _fill(dataset), rules)
    refuse_huge_chunk(name, info, stored_bytes)
    counts = tuple(-(-n // c) for n, c in zip(info.shape, info.chunks, strict=True))
    stored: int | np.ndarray = dataset.id.get_num_chunks()
    if stored != prod(counts) and wants_map(prod(counts), rules):
        stored = np.zeros(counts, bool)
        for offset in _offsets(dataset, stored.size):
            stored[tuple(o // c for o, c in zip(offset, info.chunks, strict=True))] = True
    return counted(name, info, info.chunks, stored, _fill(dataset), rules)


def _offsets(dataset: h5py.Dataset, most: int) -> list[tuple[int, ...]]:
    if h5py.version.hdf5_version_tuple >= (1, 14, 3):
        found: list[Any] = []
        dataset.id.chunk_iter(found.append)
        return [chunk.chunk_offset for chunk in found[:most]]
    # Before, it counted in chunks, not in elements.
    number = dataset.id.get_num_chunks()
    return [dataset.id.get_chunk_info(i).chunk_offset for i in range(min(number, most))]


def _fill(dataset: h5py.Dataset) -> Any:
    value = dataset.fillvalue
    return value.item() if isinstance(value, np.generic) else value
