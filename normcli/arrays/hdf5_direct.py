"""Elements written to the places that HDF5 gave them, without HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum
from normcli.arrays.hdf5_encode import ChunkEncoder
from normcli.arrays.hdf5_names import key_of
from normcli.arrays.hdf5_places import NOWHERE, chunk_key, stored_chunks
from normcli.arrays.part_keys import parse_block_key
from normcli.arrays.raw_writer import PlaceWriter, RawWriter, write_checked
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block, Grid


class DirectWriters:
    """The datasets of a file that is laid out, each chunk with a place.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What messages call it.
    arrays : mapping of str to ArrayInfo
        The arrays, by their paths in the file.
    encoders : mapping of str to ChunkEncoder
        Those of chunked arrays.
    owner : int
        The process that laid it out.

    Raises
    ------
    ValueError
        When the file holds something else.
    OSError
        When it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        arrays: Mapping[str, ArrayInfo],
        encoders: Mapping[str, ChunkEncoder],
        owner: int,
    ) -> None:
        place = PlaceWriter(path, owner)
        self._writers: dict[str, RawWriter | _ChunkWriter] = {}
        # Nobody writes what HDF5 reads here, so its lock is not needed.
        with h5py.File(path, "r", locking=False) as file:
            for inner, info in arrays.items():
                dataset = file[key_of(inner)]
                kind = h5py.h5t.py_create(info.dtype, logical=True)
                if dataset.shape != info.shape or dataset.id.get_type() != kind:
                    raise ValueError(f"{inner} is not as it was laid out")
                if inner in encoders:
                    self._writers[inner] = _ChunkWriter(place, inner, dataset, encoders[inner])
                else:
                    offset = dataset.id.get_offset()
                    if offset is None and info.size:
                        raise ValueError(f"{inner} has no place")
                    self._writers[inner] = RawWriter(path, name, info, offset or 0, inner, owner)
        self._place = place

    def write(self, inner: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block` of one array."""
        return self._writers[inner].write(block, values)

    def holds(self, part: StoredPart) -> bool:
        """Whether a part can be one of these arrays."""
        return any(writer.holds(part) for writer in self._writers.values())

    def close(self) -> None:
        """Close the handles of this process."""
        self._place.close()
        for writer in self._writers.values():
            writer.close()


class _ChunkWriter:
    """Writes chunks of one stored size."""

    def __init__(
        self, place: PlaceWriter, inner: str, dataset: h5py.Dataset, encoder: ChunkEncoder
    ) -> None:
        self._place = place
        self._inner = inner
        self._encoder = encoder
        self._grid = Grid(encoder.shape, encoder.chunks)
        self._offsets, sizes = stored_chunks(dataset)
        plist = dataset.id.get_create_plist()
        if dataset.chunks != encoder.chunks or plist.get_nfilters() != len(encoder.codes):
            raise ValueError(f"{inner} is not as it was laid out")
        if (self._offsets == NOWHERE).any() or (sizes != encoder.stored_bytes).any():
            raise ValueError(f"{inner} has chunks without a place")

    def write(self, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Encode and write the chunks of `block`."""
        parts = []
        with self._place.opened() as file:
            for start, pieces, _ in self._encoder.encode(block, values):
                offset = int(self._offsets[self._number(start)])
                checksum = PartChecksum()
                for piece in pieces:
                    view = memoryview(piece).cast("B")
                    write_checked(file, view, offset + checksum.nbytes, checksum)
                key = chunk_key(self._inner, start, self._grid.block_shape)
                parts.append(StoredPart(key, checksum.nbytes, checksum.value))
        return tuple(parts)

    def holds(self, part: StoredPart) -> bool:
        """Whether a part can be a chunk of this array."""
        parsed = parse_block_key(part.key)
        if (
            parsed is None
            or parsed[0] != self._inner
            or len(parsed[1].start) != len(self._grid.counts)
        ):
            return False
        start = parsed[1].start
        if any(
            a >= n or a % c
            for a, n, c in zip(start, self._grid.shape, self._grid.block_shape, strict=True)
        ):
            return False
        key = chunk_key(self._inner, start, self._grid.block_shape)
        return part.key == key and part.nbytes == self._encoder.stored_bytes

    def close(self) -> None:
        """Do nothing: the file belongs to all."""

    def _number(self, start: tuple[int, ...]) -> int:
        number = 0
        for a, c, count in zip(start, self._grid.block_shape, self._grid.counts, strict=True):
            number = number * count + a // c
        return number
