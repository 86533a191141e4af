"""What HDF5 does not tell of a dataset, found by comparing what it reads with what is stored.

Each answer comes from bytes that one reading explains and the other does not. Where the first few
places are explained by both, there is no answer, and the dataset is left to HDF5.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from normcli.arrays.hdf5_builtin_filters import BadChunkError, OversizedChunkError
from normcli.arrays.hdf5_filters import Pipeline

_MOST_TRIED = 16
_PROBE_BYTES = 1 << 16


def base_of_run(file: h5py.File, dataset: h5py.Dataset, dtype: np.dtype, offset: int) -> int | None:
    """Return where the offset of a contiguous dataset counts from: before or behind a user block.

    Versions of HDF5 differ in this.
    """
    if not file.userblock_size:
        return 0
    shape = dataset.shape
    if not shape or not dataset.size:
        return None
    length = min(shape[-1], _PROBE_BYTES // dtype.itemsize)
    rows = dataset.size // shape[-1]
    for row in sorted({rows * part // _MOST_TRIED for part in range(_MOST_TRIED)}):
        outer = np.unravel_index(row, shape[:-1])
        values = np.empty(length, dtype)
        dataset.read_direct(values, source_sel=(*map(int, outer), slice(0, length)))
        begin = offset + row * shape[-1] * dtype.itemsize
        base = _base(file, values.tobytes(), begin)
        if base is not None:
            return base
    return None


def base_of_chunks(
    file: h5py.File, dataset: h5py.Dataset, starts: np.ndarray, offsets: np.ndarray
) -> int | None:
    """Return where the offsets of chunks count from, as `base_of_run` does."""
    if not file.userblock_size:
        return 0
    for start, offset in zip(starts[:_MOST_TRIED], offsets[:_MOST_TRIED], strict=True):
        # A damaged index may claim any size, so that only what is in the file is taken.
        info = dataset.id.get_chunk_info_by_coord(tuple(map(int, start)))
        if not 0 < info.size <= os.fstat(file.id.get_vfd_handle()).st_size:
            return None
        _, stored = dataset.id.read_direct_chunk(tuple(map(int, start)))
        base = _base(file, bytes(stored), int(offset))
        if base is not None:
            return base
    return None


def edges_are_unfiltered(
    file: h5py.File,
    dataset: h5py.Dataset,
    pipeline: Pipeline,
    dtype: np.dtype,
    starts: np.ndarray,
    offsets: np.ndarray,
) -> bool | None:
    """Return whether a dataset leaves the chunks across its edges unfiltered.

    Parameters
    ----------
    file, dataset : h5py.File, h5py.Dataset
        The open dataset.
    pipeline : Pipeline
        Its filters.
    dtype : numpy.dtype
        Its elements, as stored.
    starts, offsets : ndarray
        First elements, and places in the file, of chunks that could be either.
    """
    for start, offset in zip(starts[:_MOST_TRIED], offsets[:_MOST_TRIED], strict=True):
        stored = os.pread(file.id.get_vfd_handle(), pipeline.chunk_bytes, int(offset))
        if len(stored) < pipeline.chunk_bytes:
            return None
        filtered = np.empty(dataset.chunks, dtype)
        decodes = True
        try:
            pipeline.decode(stored, 0, filtered)
        except OversizedChunkError:
            return None  # HDF5 would inflate it, however far
        except BadChunkError:
            decodes = False
        stop = np.minimum(start + dataset.chunks, dataset.shape)
        values = np.empty(tuple(map(int, stop - start)), dtype)
        dataset.read_direct(values, source_sel=tuple(map(slice, start, stop)))
        inside = tuple(map(slice, values.shape))
        as_filtered = decodes and filtered[inside].tobytes() == values.tobytes()
        raw = np.frombuffer(stored, dtype).reshape(dataset.chunks)
        as_raw = raw[inside].tobytes() == values.tobytes()
        if as_filtered != as_raw:
            return as_raw
        if not as_raw:
            return None
    return None


def _base(file: h5py.File, expected: bytes, offset: int) -> int | None:
    descriptor = file.id.get_vfd_handle()
    bases = [
        base
        for base in (0, file.userblock_size)
        if os.pread(descriptor, len(expected), base + offset) == expected
    ]
    return bases[0] if len(bases) == 1 else None
