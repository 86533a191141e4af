"""How far compressed chunks inflate, told from their headers, before anything inflates them.

A frame of zstd is a chain of blocks, each of which tells its length and gives 128 KiB at most. To
follow the chain takes some microseconds a chunk; decoding it takes a thousand times as long.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from itertools import product
from math import prod
from pathlib import Path

import numpy as np

from normcli.arrays.zarr_documents import ArrayDocument, codec_name
from normcli.arrays.zarr_shards import read_index, standard_index

# Returns bytes of a chunk: as many as asked for from a place on, or fewer where it ends.
Read = Callable[[int, int], bytes]

_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST_OF_BLOCK = 128 << 10
_RLE, _COMPRESSED = 1, 2
_SUM = 4
_BLOSC_HEADER = 16
# Blocks may give less than the most, so that the bound of a sound chunk exceeds the chunk.
_ALLOWANCE = 4
_SLACK = 1 << 20


def zstd_sizes(read: Read, size: int) -> tuple[int | None, int] | None:
    """Return what the frames of a chunk tell that they inflate to, and how far they can.

    Parameters
    ----------
    read : callable
        Reads from the chunk.
    size : int
        Its bytes.

    Returns
    -------
    tuple of (int or None, int), or None
        The told size, None where a frame does not tell; the size that blocks can give. None where
        the chunk is not a plain chain of frames that ends where the chunk does.
    """
    at, told, most = 0, 0, 0
    tells = True
    while at < size:
        head = read(at, 18)
        if len(head) < 6 or head[:4] != _MAGIC or head[4] & 0x08:
            return None
        single = bool(head[4] & 0x20)
        width = (1 if single else 0, 2, 4, 8)[head[4] >> 6]
        first = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
        content = int.from_bytes(head[first : first + width], "little") + 256 * (width == 2)
        tells = tells and bool(width)
        told += content
        window = content if single else _window(head[5])
        at += first + width
        last = False
        while not last:
            header = int.from_bytes(read(at, 3), "little")
            last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
            if kind > _COMPRESSED or at + 3 > size:
                return None
            most += min(window, _MOST_OF_BLOCK) if kind == _COMPRESSED else length
            at += 3 + (1 if kind == _RLE else length)
        at += _SUM if head[4] & 0x04 else 0
    return (told if tells else None, most) if at == size else None


def _window(descriptor: int) -> int:
    base = 1 << (10 + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)


class BoundedFrames:
    """Tells of chunks in files whether they inflate to about a chunk, and not far more.

    Parameters
    ----------
    folder : Path
        The folder of the array.
    document : ArrayDocument
        Its metadata.
    nbytes : int
        Bytes of a decoded (inner) chunk.
    kind : {"", "zstd", "blosc"}
        What chunks are compressed with.
    sums : tuple of int
        Bytes of checksums that are compressed with a chunk, and that follow the compressed.
    """

    def __init__(
        self, folder: Path, document: ArrayDocument, nbytes: int, kind: str, sums: tuple[int, int]
    ) -> None:
        self._folder = folder
        self._document = document
        self._bytes = nbytes + sums[0]
        self._kind = kind
        self._tail = sums[1]
        self._judged: dict[tuple[int, ...], bool] = {}

    @classmethod
    def of(cls, folder: Path, document: ArrayDocument, itemsize: int) -> BoundedFrames | None:
        """Return the judge of an array; None for compressions whose size no header tells."""
        chain, chunk = document.codecs, document.chunks
        if document.sharding is not None:
            if [codec_name(codec) for codec in chain] != ["sharding_indexed"]:
                return None
            if not standard_index(document.sharding):
                return None
            chain = tuple(document.sharding.get("codecs") or ())
            chunk = tuple(document.sharding["chunk_shape"])
        names = [codec_name(codec).removeprefix("numcodecs.") for codec in chain]
        names = [name for name in names if name not in ("bytes", "transpose")]
        kinds = [name for name in names if name != "crc32c"]
        if len(kinds) > 1 or not set(kinds) <= {"zstd", "blosc"}:
            return None
        before = names.index(kinds[0]) if kinds else len(names)
        sums = (_SUM * before, _SUM * (len(names) - before - len(kinds)))
        kind = kinds[0] if kinds else ""
        return cls(folder, document, prod(chunk) * itemsize, kind, sums)

    def cover(self, start: tuple[int, ...], stop: tuple[int, ...]) -> bool:
        """Whether all chunks of a block are bounded; each file is judged once."""
        if not self._kind:
            return True
        spans = [
            range(a // c, -(-b // c))
            for a, b, c in zip(start, stop, self._document.chunks, strict=True)
        ]
        return all(self._judge(index) for index in product(*spans))

    def _judge(self, index: tuple[int, ...]) -> bool:
        known = self._judged.get(index)
        if known is None:
            known = self._judged[index] = self._bounded(self._folder / self._document.key(index))
        return known

    def _bounded(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return True
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return False
            if self._document.sharding is None:
                return self._fits(file, 0, status.st_size)
            table = read_index(file, status.st_size, self._document)
            known = (table != np.iinfo(np.uint64).max).any(axis=1)
            return all(self._fits(file, int(a), int(n)) for a, n in table[known])
        finally:
            os.close(file)

    def _fits(self, file: int, begin: int, size: int) -> bool:
        size -= self._tail
        if self._kind == "blosc":
            head = os.pread(file, _BLOSC_HEADER, begin)
            told, stored = int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:], "little")
            return len(head) == _BLOSC_HEADER and stored == size and told == self._bytes
        start = os.pread(file, min(size, 4096), begin)  # nearly all that small chunks need

        def read(at: int, count: int) -> bytes:
            if at + count <= len(start):
                return start[at : at + count]
            return os.pread(file, max(0, min(count, size - at)), begin + at)

        sizes = zstd_sizes(read, size)
        if sizes is None:
            return False
        content, most = sizes
        return content in (None, self._bytes) and most <= _ALLOWANCE * self._bytes + _SLACK
