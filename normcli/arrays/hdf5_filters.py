"""HDF5's filters without HDF5, whose one lock would let one thread decode at a time."""

from __future__ import annotations

import contextlib
import importlib
import zlib
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from normcli.arrays.hdf5_registered import Decoder, decoder_of, keeps_size
from normcli.arrays.runs import byte_view
from normcli.errors import SafetyError

isal_zlib: Any = None
_INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, ValueError)
# Where isal cannot be imported, zlib gives the same numbers, more slowly.
with contextlib.suppress(ImportError):
    isal_zlib = importlib.import_module("isal.isal_zlib")
    _INFLATE_ERRORS = (*_INFLATE_ERRORS, isal_zlib.error)

_SHUFFLE = h5py.h5z.FILTER_SHUFFLE
_DEFLATE = h5py.h5z.FILTER_DEFLATE
_FLETCHER32 = h5py.h5z.FILTER_FLETCHER32
_CHECKSUM_BYTES = 4

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


@dataclass(frozen=True)
class Pipeline:
    """The filters of one dataset, in the order in which writing applies them.

    Attributes
    ----------
    codes : tuple of int
        HDF5's numbers of the filters.
    itemsize : int
        Bytes of one element.
    chunk_bytes : int
        Bytes of one decoded chunk.
    level : int
        Level of deflate, for writing.
    decoders : tuple of Decoder or None
        Those of the filters that do not come with HDF5, at their places in `codes`; empty for
        writing, which does not know them.
    """

    codes: tuple[int, ...]
    itemsize: int
    chunk_bytes: int
    level: int
    decoders: tuple[Decoder | None, ...] = ()

    @classmethod
    def of(
        cls, plist: Any, dtype: np.dtype, chunk_bytes: int, reading: bool = False
    ) -> Pipeline | None:
        """Return the filters of a dataset creation property list; None if one is not known here.

        With `reading`, the registered filters of `hdf5_registered` are known too.
        """
        codes: list[int] = []
        decoders: list[Decoder | None] = []
        packing = 0
        level = 4
        for number in range(plist.get_nfilters()):
            code, _, parameters, _ = plist.get_filter(number)
            decoder = None
            if code not in (_SHUFFLE, _DEFLATE, _FLETCHER32):
                decoder = decoder_of(code, parameters, dtype.itemsize) if reading else None
                if decoder is None:
                    return None
            packing += code == _DEFLATE or (
                decoder is not None and not keeps_size(code, parameters)
            )
            if code == _SHUFFLE and tuple(parameters) != (dtype.itemsize,):
                return None
            if code == _DEFLATE and parameters:
                level = int(parameters[0])
            codes.append(code)
            decoders.append(decoder)
        # A second compression would be decoded to a size that nothing bounds.
        if packing > 1 or codes.count(_SHUFFLE) > 1:
            return None
        return cls(tuple(codes), dtype.itemsize, chunk_bytes, level, tuple(decoders))

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of each stored chunk, or None where they depend on the elements."""
        if _DEFLATE in self.codes:
            return None
        return self.chunk_bytes + _CHECKSUM_BYTES * self.codes.count(_FLETCHER32)

    def applied(self, mask: int) -> tuple[int, ...]:
        """Return the filters that a chunk of this filter mask went through."""
        return tuple(self.codes[number] for number in self._steps(mask))

    def _steps(self, mask: int) -> list[int]:
        return [number for number in range(len(self.codes)) if not mask >> number & 1]

    def decode(self, data: Any, mask: int, out: np.ndarray) -> None:
        """Undo the filters of one stored chunk.

        Parameters
        ----------
        data : buffer
            The chunk as stored.
        mask : int
            Its filter mask: a set bit is a filter that was skipped.
        out : ndarray
            A C-ordered array of one chunk, filled.

        Raises
        ------
        BadChunkError
            When the chunk fails its checksum, or does not decode to exactly one chunk.
        """
        steps = self._steps(mask)
        for position in range(len(steps) - 1, -1, -1):
            code = self.codes[steps[position]]
            sums = [self.codes[step] for step in steps[:position]].count(_FLETCHER32)
            size = self.chunk_bytes + sums * _CHECKSUM_BYTES
            if code == _FLETCHER32:
                data = _checked(data)
            elif code == _DEFLATE:
                data = _inflate(data, size)
            elif code != _SHUFFLE:
                target = np.empty(size, np.uint8) if position else _bytes_of(out)
                self._decode_registered(steps[position], data, target)
                if not position:
                    return
                data = target
            elif position == 0:
                self._require_size(data)
                _unshuffle(data, _bytes_of(out).reshape(-1, self.itemsize))
                return
            else:
                data = self._unshuffled(data)
        self._require_size(data)
        _bytes_of(out)[:] = np.frombuffer(data, np.uint8)

    def encode(self, chunk: np.ndarray) -> tuple[tuple[Any, ...], int]:
        """Return a C-ordered chunk as it is stored, in one or several buffers, and its mask."""
        pieces: tuple[Any, ...] = (byte_view(chunk),)
        mask = 0
        for number, code in enumerate(self.codes):
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if code == _SHUFFLE:
                pieces = (_shuffle(data, self.itemsize),)
            elif code == _DEFLATE:
                packed = _deflate(data, self.level)
                pieces = (data,)
                if len(packed) < len(data):
                    pieces = (packed,)
                else:  # as HDF5 does with what deflate cannot shrink
                    mask |= 1 << number
            else:
                # Joining them would copy the chunk.
                pieces = (data, fletcher32(data).to_bytes(_CHECKSUM_BYTES, "little"))
        return pieces, mask

    def _decode_registered(self, number: int, data: Any, target: np.ndarray) -> None:
        decoder = self.decoders[number]
        assert decoder is not None
        try:
            decoder(np.frombuffer(data, np.uint8), target)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise BadChunkError(
                f"cannot be decoded by the filter {self.codes[number]} ({reason})"
            ) from error

    def _unshuffled(self, data: Any) -> np.ndarray:
        # The checksum of a fletcher32 before the shuffle makes a tail, which shuffling left alone.
        body = len(data) // self.itemsize * self.itemsize
        result = np.empty(len(data), np.uint8)
        view = memoryview(data)
        _unshuffle(view[:body], result[:body].reshape(-1, self.itemsize))
        result[body:] = np.frombuffer(view[body:], np.uint8)
        return result

    def _require_size(self, data: Any) -> None:
        if len(data) != self.chunk_bytes:
            raise BadChunkError(f"decodes to {len(data)} bytes instead of {self.chunk_bytes}")


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


def _checked(data: Any) -> memoryview:
    view = memoryview(data)
    body, stored = view[:-_CHECKSUM_BYTES], bytes(view[-_CHECKSUM_BYTES:])
    if len(stored) < _CHECKSUM_BYTES:
        raise BadChunkError(f"has {len(view)} bytes, too few for its checksum")
    expected = fletcher32(body)
    if int.from_bytes(stored, "little") == expected:
        return body
    # HDF5 1.6.2 and earlier stored the bytes of each half exchanged on little-endian machines.
    if bytes((stored[1], stored[0], stored[3], stored[2])) == expected.to_bytes(4, "little"):
        return body
    raise BadChunkError("fails its checksum (fletcher32)")


def _inflate(data: Any, size: int) -> bytes:
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


def _deflate(data: Any, level: int) -> bytes:
    if isal_zlib is not None and 0 < level <= _ISAL_UNTIL:
        return isal_zlib.compress(data, _ISAL_LEVEL)
    return zlib.compress(data, level)


def _shuffle(data: Any, itemsize: int) -> np.ndarray:
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


def _unshuffle(data: Any, out: np.ndarray) -> None:
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


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1).view(np.uint8)


def require_stored_size(where: str, size: int, chunk_bytes: int) -> None:
    """Refuse a stored chunk that no filter made of one chunk, before memory is taken for it.

    Parameters
    ----------
    where : str
        The chunk, for the message.
    size : int
        Bytes that it takes in the file, as the file says.
    chunk_bytes : int
        Bytes of its elements.

    Raises
    ------
    SafetyError
        When it is more than twice as large as its elements (and 4096 bytes).
    """
    if size > 2 * chunk_bytes + 4096:
        raise SafetyError(
            f"{where}: its stored chunk is said to have {size:,} bytes, for {chunk_bytes:,} bytes "
            "of elements.",
            "It is damaged, or made to exhaust memory; it was not read.",
        )
