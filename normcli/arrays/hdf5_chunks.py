"""HDF5 datasets read around HDF5, whose one lock would let one thread read at a time.

The chunks (or the one run of bytes) of a dataset are where HDF5 says they are; from there on a
read is `pread`, the filters, and a copy, none of which holds a lock.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import read_error
from normcli.arrays.handles import PerProcess
from normcli.arrays.hdf5_builtin_filters import BadChunkError, OversizedChunkError
from normcli.arrays.hdf5_chunk_check import require_stored_size
from normcli.arrays.hdf5_filters import Pipeline
from normcli.arrays.hdf5_probes import base_of_chunks, base_of_run, edges_are_unfiltered
from normcli.arrays.npy import RawSource
from normcli.arrays.npy_format import NpyHeader
from normcli.arrays.runs import byte_view
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block, Grid
from normcli.errors import InputError, SafetyError
from normcli.retrying import read_at

# 40 MB of index; the chunks of a larger grid are left to h5py.
_MOST_CHUNKS = 1 << 21
_NOWHERE = -1
_NO_FILTER = 0xFFFFFFFF


class BlockReader(Protocol):
    """What reads blocks of one open dataset."""

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in native byte order."""
        ...

    def close(self) -> None:
        """Close what it holds open."""
        ...


def direct_reader(
    file: h5py.File, dataset: h5py.Dataset, info: ArrayInfo, name: str, cache_bytes: int
) -> BlockReader | None:
    """Return a reader that goes around h5py; None where only HDF5 knows how.

    Parameters
    ----------
    file, dataset : h5py.File, h5py.Dataset
        The open dataset, found by the guard.
    info : ArrayInfo
        What was known of it when the run began.
    name : str
        What messages call it.
    cache_bytes : int
        How much decoded chunks may be kept of which a block took a part.
    """
    plist = dataset.id.get_create_plist()
    plain = h5py.h5t.py_create(info.dtype) == dataset.id.get_type()
    if not plain or dataset.shape != info.shape or file.driver != "sec2":
        return None
    layout = plist.get_layout()
    if layout == h5py.h5d.CONTIGUOUS and not plist.get_external_count():
        offset = dataset.id.get_offset()
        if offset is None or dataset.id.get_storage_size() != info.nbytes:
            return None
        base = base_of_run(file, dataset, info.dtype, offset)
        return None if base is None else _Contiguous(name, file, info, base + offset)
    if layout != h5py.h5d.CHUNKED or dataset.chunks != info.chunks:
        return None
    pipeline = Pipeline.of(plist, info.dtype, prod(dataset.chunks) * info.dtype.itemsize, True)
    if pipeline is None or plist.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED:
        return None
    index = _ChunkIndex.of(file, dataset, pipeline, info.dtype)
    if index is None:
        return None
    return _Chunked(name, file, info, pipeline, index, dataset.fillvalue, cache_bytes)


def decodable(dataset: h5py.Dataset) -> bool:
    """Whether the filters of a dataset are known without HDF5."""
    plist = dataset.id.get_create_plist()
    itemsize = dataset.dtype.itemsize
    chunk_bytes = prod(dataset.chunks or (1,)) * itemsize
    return Pipeline.of(plist, dataset.dtype, chunk_bytes, True) is not None


class _Contiguous(RawSource):
    """One run of bytes, read by the descriptor that HDF5 has opened."""

    def __init__(self, name: str, file: h5py.File, info: ArrayInfo, offset: int) -> None:
        header = NpyHeader(info.shape, info.dtype, False, offset)
        super().__init__(name, Path(file.filename), header)
        self._file = PerProcess(partial(os.dup, file.id.get_vfd_handle()), os.close)
        self._file.get()


class _ChunkIndex:
    """Where each chunk of the grid is stored; `_NOWHERE` for one that was never written."""

    def __init__(self, count: int) -> None:
        self.offsets = np.full(count, _NOWHERE, np.int64)
        self.sizes = np.zeros(count, np.int64)
        self.masks = np.zeros(count, np.uint32)

    @classmethod
    def of(
        cls, file: h5py.File, dataset: h5py.Dataset, pipeline: Pipeline, dtype: np.dtype
    ) -> _ChunkIndex | None:
        """Return the index of a dataset; None where it cannot be relied on."""
        counts = Grid(dataset.shape, dataset.chunks).counts
        if prod(counts) > _MOST_CHUNKS or not hasattr(dataset.id, "chunk_iter"):
            return None
        index = cls(prod(counts))
        stored: list[Any] = []
        dataset.id.chunk_iter(stored.append)
        if not stored:
            return index
        # HDF5 before 1.14.3 counted these in chunks, not in elements.
        last = stored[-1]
        known = dataset.id.get_chunk_info_by_coord(last.chunk_offset)
        if known.byte_offset != last.byte_offset:
            return None
        starts = np.array([chunk.chunk_offset for chunk in stored], np.int64)
        grid = starts // dataset.chunks
        inside = ((grid >= 0) & (grid < counts)).all(axis=1)
        if not (inside & (starts % dataset.chunks == 0).all(axis=1)).all():
            return None
        at = np.ravel_multi_index(tuple(grid.T), counts)
        index.offsets[at] = np.array([c.byte_offset for c in stored], np.uint64).view(np.int64)
        index.sizes[at] = np.array([c.size for c in stored], np.uint64).view(np.int64)
        index.masks[at] = [chunk.filter_mask for chunk in stored]
        base = base_of_chunks(file, dataset, starts, index.offsets[at])
        if base is None:
            return None
        index.offsets[at] += base
        # A dataset may leave the chunks across its edges unfiltered, and tells by a flag that
        # h5py does not show: a chunk of exactly the size of raw elements may be one of those.
        across = (starts + dataset.chunks > dataset.shape).any(axis=1)
        raw = (index.sizes[at] == pipeline.chunk_bytes) & (index.masks[at] == 0)
        doubtful = across & raw
        if pipeline.codes and doubtful.any():
            places = starts[doubtful], index.offsets[at][doubtful]
            unfiltered = edges_are_unfiltered(file, dataset, pipeline, dtype, *places)
            if unfiltered is None or (unfiltered and not raw[across].all()):
                return None
            if unfiltered:
                index.masks[at[across]] = _NO_FILTER
        return index


class _Chunked:
    """Chunks read at their places and decoded in the calling thread."""

    def __init__(
        self,
        name: str,
        file: h5py.File,
        info: ArrayInfo,
        pipeline: Pipeline,
        index: _ChunkIndex,
        fill: Any,
        cache_bytes: int,
    ) -> None:
        self._name = name
        self._info = info
        self._pipeline = pipeline
        self._index = index
        self._fill = fill
        self._chunks = info.chunks or ()
        self._counts = Grid(info.shape, self._chunks).counts
        self._most_kept = cache_bytes // max(1, pipeline.chunk_bytes)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._descriptor = os.dup(file.id.get_vfd_handle())

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, in native byte order."""
        stored = self._info.dtype
        values = block_array(block.shape, stored, buffer)
        spans = [
            range(a // c, -(-b // c))
            for a, b, c in zip(block.start, block.stop, self._chunks, strict=True)
        ]
        for inner in np.ndindex(*map(len, spans)):
            self._place(tuple(s[i] for s, i in zip(spans, inner, strict=True)), block, values)
        if not stored.isnative:
            values = values.byteswap(inplace=True).view(stored.newbyteorder("="))
        return values

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _place(self, at: tuple[int, ...], block: Block, values: np.ndarray) -> None:
        begin = tuple(i * c for i, c in zip(at, self._chunks, strict=True))
        end = tuple(a + c for a, c in zip(begin, self._chunks, strict=True))
        low = tuple(map(max, begin, block.start))
        high = tuple(map(min, end, block.stop))
        target = values[tuple(map(_between, low, high, block.start))]
        cut = tuple(map(_between, low, high, begin))
        number = int(np.ravel_multi_index(at, self._counts))
        if self._index.offsets[number] == _NOWHERE:
            target[...] = self._fill
        elif target.shape == self._chunks and target.flags.c_contiguous:
            self._decode(number, begin, target)
        elif not self._pipeline.applied(int(self._index.masks[number])):
            target[...] = self._rows(number, begin, cut[0])[(slice(None), *cut[1:])]
        elif high == tuple(map(min, end, self._info.shape)) and low == begin:
            target[...] = self._decoded(number, begin)[cut]
        else:
            target[...] = self._kept_chunk(number, begin)[cut]

    def _kept_chunk(self, number: int, begin: tuple[int, ...]) -> np.ndarray:
        # Another block will want the rest of the chunk.
        with self._lock:
            chunk = self._kept.get(number)
            if chunk is not None:
                self._kept.move_to_end(number)
                return chunk
        chunk = self._decoded(number, begin)
        with self._lock:
            if self._most_kept:
                self._kept[number] = chunk
            while len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
        return chunk

    def _decoded(self, number: int, begin: tuple[int, ...]) -> np.ndarray:
        chunk = np.empty(self._chunks, self._info.dtype)
        self._decode(number, begin, chunk)
        return chunk

    def _decode(self, number: int, begin: tuple[int, ...], out: np.ndarray) -> None:
        mask = int(self._index.masks[number])
        if not self._pipeline.applied(mask):
            out[...] = self._rows(number, begin, slice(0, len(out)))
            return
        try:
            # Held by no name here, so that what is inflated frees what was stored.
            self._pipeline.decode(self._stored(number, begin), mask, out)
        except OversizedChunkError as error:
            raise SafetyError(
                f"{self._name} at {begin}: its stored chunk {error}.",
                "It is damaged, or made to exhaust memory; it was not read.",
            ) from error
        except BadChunkError as error:
            raise self._bad(begin, str(error)) from error

    def _stored(self, number: int, begin: tuple[int, ...]) -> np.ndarray:
        size = int(self._index.sizes[number])
        if size < 0:
            raise self._bad(begin, f"is said to have {size} bytes")
        require_stored_size(f"{self._name} at {begin}", size, self._pipeline.chunk_bytes)
        data = np.empty(size, np.uint8)
        self._read_into(byte_view(data), int(self._index.offsets[number]), begin)
        return data

    def _rows(self, number: int, begin: tuple[int, ...], rows: slice) -> np.ndarray:
        size = int(self._index.sizes[number])
        if size != self._pipeline.chunk_bytes:
            raise self._bad(begin, f"has {size} bytes instead of {self._pipeline.chunk_bytes}")
        values = np.empty((rows.stop - rows.start, *self._chunks[1:]), self._info.dtype)
        skipped = rows.start * (size // self._chunks[0])
        offset = int(self._index.offsets[number]) + skipped
        self._read_into(byte_view(values), offset, begin)
        return values

    def _read_into(self, view: memoryview, offset: int, begin: tuple[int, ...]) -> None:
        where = f"{self._name} at {begin}"
        try:
            done = read_at(self._descriptor, view, offset, where)
        except OSError as error:
            raise read_error(where, error) from error
        if done < len(view):
            raise self._bad(begin, f"reaches beyond the end of the file, byte {offset + done}")

    def _bad(self, begin: tuple[int, ...], what: str) -> InputError:
        return InputError(
            f"{self._name} at {begin} could not be read: its stored chunk {what}.",
            "The file is damaged: copy or download it again.",
        )


def _between(low: int, high: int, origin: int) -> slice:
    return slice(low - origin, high - origin)
