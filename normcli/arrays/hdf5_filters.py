"""HDF5's filters without HDF5, whose one lock would let one thread decode at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from normcli.arrays.hdf5_builtin_filters import (
    CHECKSUM_BYTES,
    BadChunkError,
    bytes_of,
    checked,
    deflate,
    fletcher32,
    inflate,
    shuffle,
    unshuffle,
)
from normcli.arrays.hdf5_registered import Decoder, decoder_of, keeps_size
from normcli.arrays.runs import byte_view

_SHUFFLE = h5py.h5z.FILTER_SHUFFLE
_DEFLATE = h5py.h5z.FILTER_DEFLATE
_FLETCHER32 = h5py.h5z.FILTER_FLETCHER32


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
        return self.chunk_bytes + CHECKSUM_BYTES * self.codes.count(_FLETCHER32)

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
            size = self.chunk_bytes + sums * CHECKSUM_BYTES
            if code == _FLETCHER32:
                data = checked(data)
            elif code == _DEFLATE:
                data = inflate(data, size)
            elif code != _SHUFFLE:
                target = np.empty(size, np.uint8) if position else bytes_of(out)
                self._decode_registered(steps[position], data, target)
                if not position:
                    return
                data = target
            elif position == 0:
                self._require_size(data)
                unshuffle(data, bytes_of(out).reshape(-1, self.itemsize))
                return
            else:
                data = self._unshuffled(data)
        self._require_size(data)
        bytes_of(out)[:] = np.frombuffer(data, np.uint8)

    def encode(self, chunk: np.ndarray) -> tuple[tuple[Any, ...], int]:
        """Return a C-ordered chunk as it is stored, in one or several buffers, and its mask."""
        pieces: tuple[Any, ...] = (byte_view(chunk),)
        mask = 0
        for number, code in enumerate(self.codes):
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if code == _SHUFFLE:
                pieces = (shuffle(data, self.itemsize),)
            elif code == _DEFLATE:
                packed = deflate(data, self.level)
                pieces = (data,)
                if len(packed) < len(data):
                    pieces = (packed,)
                else:  # as HDF5 does with what deflate cannot shrink
                    mask |= 1 << number
            else:
                # Joining them would copy the chunk.
                pieces = (data, fletcher32(data).to_bytes(CHECKSUM_BYTES, "little"))
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
        unshuffle(view[:body], result[:body].reshape(-1, self.itemsize))
        result[body:] = np.frombuffer(view[body:], np.uint8)
        return result

    def _require_size(self, data: Any) -> None:
        if len(data) != self.chunk_bytes:
            raise BadChunkError(f"decodes to {len(data)} bytes instead of {self.chunk_bytes}")
