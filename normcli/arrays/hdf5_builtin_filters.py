"""The filters that every HDF5 has, on buffers: gzip, shuffle and fletcher32."""

from __future__ import annotations

import contextlib
import importlib
import zlib
from typing import Any

import numpy as np

isal_zlib: Any = None
_INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, ValueError)
# Where isal cannot be imported, zlib gives the same numbers, more slowly.
with contextlib.suppress(ImportError):
    isal_zlib = importlib.import_module("isal.isal_zlib")
    _INFLATE_ERRORS = (*_INFLATE_ERRORS, isal_zlib.error)

CHECKSUM_BYTES = 4

# Elements unshuffled at once, so that what is composed plane by plane stays in the cache.
_TILE = 1 << 16
_WORDS = 4096

# isal's level 1 packs shuffled floats as zlib's level 4 does (0.548 and 0.563 of the size, smooth
# fields 0.511 and 0.495) at 0.4 to 0.8 GB/s against 0.05. Above level 6 the caller wants it small.
_ISAL_LEVEL = 1
_ISAL_UNTIL = 6


class BadChunkError(ValueError):
    """A stored chunk is not what its filters make of a chunk."""


class OversizedChunkError(BadChunkError):
    """A stored chunk inflates to more than its dataset says."""


def fletcher32(data: Any) -> int:
    """Return HDF5's fletcher32 of a buffer.

    Two sums over its big-endian 16-bit words modulo 65535. The words are summed by rows and by
    columns of a table, from which the sum weighted by position follows: 5.8 GB/s on one core
    without the global interpreter lock, where numcodecs does 3.3 with it.
    """
    little = _fletcher_of_little_words(data)
    # Exchanging the bytes of a word is multiplying by 256 modulo 65535.
    first, second = (_folded((half & 0xFFFF) * 256) for half in (little, little >> 16))
    return second << 16 | first


def _fletcher_of_little_words(data: Any) -> int:
    flat = np.frombuffer(data, np.uint8)
    words = flat[: len(flat) // 2 * 2].view("<u2")
    total = len(words) + len(flat) % 2
    rows = len(words) // _WORDS
    table = words[: rows * _WORDS].reshape(rows, _WORDS)
    first, second = _fletcher_part(table, total)
    rest = words[rows * _WORDS :].reshape(1, -1)
    more_first, more_second = _fletcher_part(rest, total - rows * _WORDS)
    first += more_first
    second += more_second
    if len(flat) % 2:  # the high byte of a last big-endian word
        first += int(flat[-1])
        second += int(flat[-1])
    return _folded(second) << 16 | _folded(first)


def _fletcher_part(table: np.ndarray, weight: int) -> tuple[int, int]:
    # 32-bit sums are twice as fast, and overflow beyond 65537 words.
    kind = np.uint32 if len(table) <= 1 << 16 else np.uint64
    by_column = table.sum(axis=0, dtype=kind).astype(np.uint64)
    by_row = table.sum(axis=1, dtype=np.uint32).astype(np.uint64)
    first = int(by_row.sum())
    # Exact in 64 bits for every chunk that HDF5 can store with this filter, which is below 4 GiB.
    later = int(np.arange(len(table), dtype=np.uint64) @ by_row) * table.shape[1]
    within = int(np.arange(table.shape[1], dtype=np.uint64) @ by_column)
    return first, weight * first - later - within


def _folded(value: int) -> int:
    # Adding carries back in never gives 0 for what is not 0.
    return (value - 1) % 65535 + 1 if value else 0


def checked(data: Any) -> memoryview:
    """Return a buffer without the checksum at its end, which is compared."""
    view = memoryview(data)
    body, stored = view[:-CHECKSUM_BYTES], bytes(view[-CHECKSUM_BYTES:])
    if len(stored) < CHECKSUM_BYTES:
        raise BadChunkError(f"has {len(view)} bytes, too few for its checksum")
    expected = fletcher32(body)
    if int.from_bytes(stored, "little") == expected:
        return body
    # HDF5 1.6.2 and earlier stored the bytes of each half exchanged on little-endian machines.
    if bytes((stored[1], stored[0], stored[3], stored[2])) == expected.to_bytes(4, "little"):
        return body
    raise BadChunkError("fails its checksum (fletcher32)")


def inflate(data: Any, size: int) -> bytes:
    """Return the `size` bytes that a buffer inflates to; refuse any other number."""
    library: Any = isal_zlib or zlib
    worker = library.decompressobj()
    try:
        # One byte of room lets the end of the stream show itself, and stops what is longer.
        result = worker.decompress(data, size + 1)
    except _INFLATE_ERRORS as error:
        raise BadChunkError(f"does not inflate ({error})") from error
    if len(result) > size:
        raise OversizedChunkError(f"inflates to more than its {size} bytes")
    if len(result) < size:
        raise BadChunkError(f"inflates to {len(result)} of its {size} bytes")
    if not worker.eof:
        raise BadChunkError("is cut before the end of its gzip stream")
    return result


def inflate_at_most(data: Any, size: int) -> None:
    """Inflate a buffer without keeping it, to see that it gives no more than `size` bytes.

    Raises
    ------
    BadChunkError
        When it gives more, or does not inflate.
    """
    worker = zlib.decompressobj()
    found = 0
    try:
        while not worker.eof:
            piece = worker.decompress(data, 1 << 20)
            found += len(piece)
            if found > size:
                raise OversizedChunkError(f"inflates to more than {size} bytes")
            data = worker.unconsumed_tail
            if not piece and not data:
                raise BadChunkError("is cut before the end of its gzip stream")
    except zlib.error as error:
        raise BadChunkError(f"does not inflate ({error})") from error


def deflate(data: Any, level: int) -> bytes:
    """Return a buffer as gzip packs it."""
    if isal_zlib is not None and 0 < level <= _ISAL_UNTIL:
        return isal_zlib.compress(data, _ISAL_LEVEL)
    return zlib.compress(data, level)


def shuffle(data: Any, itemsize: int) -> np.ndarray:
    """Return the bytes of elements plane by plane: all first bytes first."""
    flat = np.frombuffer(data, np.uint8)
    body = len(flat) // itemsize * itemsize
    result = np.empty(len(flat), np.uint8)
    planes = result[:body].reshape(itemsize, -1)
    if itemsize in (2, 4):
        values = flat[:body].view(f"<u{itemsize}")
        for begin in range(0, len(values), _TILE):
            tile = slice(begin, begin + _TILE)
            for number, plane in enumerate(planes):
                np.right_shift(values[tile], 8 * number, out=plane[tile], casting="unsafe")
    else:
        planes[...] = flat[:body].reshape(-1, itemsize).T
    result[body:] = flat[body:]
    return result


def unshuffle(data: Any, out: np.ndarray) -> None:
    """Compose elements, an axis of bytes each, from their planes."""
    # Composing integers from planes: 4.5 GB/s of float32 and 9 of float16 on one core, where
    # storing each plane at a stride does 3.5, numpy's transposition 1.0 and numcodecs 0.6; for
    # eight bytes the strides are faster. None of the numpy ways holds the interpreter lock.
    itemsize = out.shape[-1]
    planes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
    if itemsize not in (2, 4):
        for number, plane in enumerate(planes):
            out[:, number] = plane
        return
    values = out.reshape(-1).view(f"<u{itemsize}")
    for begin in range(0, len(values), _TILE):
        tile = slice(begin, begin + _TILE)
        target = values[tile]
        target[...] = planes[-1][tile]
        for plane in planes[-2::-1]:
            np.left_shift(target, 8, out=target)
            np.bitwise_or(target, plane[tile], out=target)


def bytes_of(values: np.ndarray) -> np.ndarray:
    """Return the bytes of an array as a view."""
    return values.reshape(-1).view(np.uint8)
