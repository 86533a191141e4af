"""Zarr's decompressors, bounded by the chunk that they shall give.

No library behind zarr limits what it inflates: 32 kB of zstd become 1 GiB before anything compares
the size with the chunk. blosc also reads past the end of a chunk that was cut.
"""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import importlib
import lzma
import zlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.codec_pipeline import BatchedCodecPipeline

from normcli.arrays.runs import byte_view
from normcli.arrays.zarr_frames import zstd_sizes

# What filters (a type change, checksums) may add to a chunk before it is compressed.
_FILTER_GROWTH = 8
_SLACK = 1024
# Where isal can be imported, it gives the same bytes twice as fast.
_zlib: Any = zlib
with contextlib.suppress(ImportError):
    _zlib = importlib.import_module("isal.isal_zlib")
_BOUNDED = {"gzip", "zlib", "bz2", "lzma", "zstd", "blosc", "lz4"}


class OversizedChunkError(ValueError):
    """A stored chunk inflates to more than its array says."""


class BoundedCodec:
    """A codec of numcodecs that decodes to no more than it should.

    Parameters
    ----------
    codec : numcodecs.abc.Codec
        The codec.
    limit : int
        Bytes that it may give at most.
    """

    def __init__(self, codec: Any, limit: int) -> None:
        self._codec = codec
        self._limit = limit

    @staticmethod
    def knows_room(kind: str) -> bool:
        """Whether codecs of this kind can `fill`."""
        return kind in _BOUNDED

    def fill(self, stored: memoryview, room: memoryview) -> None:
        """Decode a stored chunk into memory that it fills.

        Raises
        ------
        OversizedChunkError, ValueError, RuntimeError
            When it gives more or less than that, or is damaged.
        """
        told = self._told(stored)
        if told is None:
            decoded = byte_view(np.asarray(self.decode(stored)))
            if len(decoded) != len(room):
                raise ValueError(f"decodes to {len(decoded)} bytes instead of {len(room)}")
            room[:] = decoded
        elif told != len(room):
            raise ValueError(f"decodes to {told} bytes instead of {len(room)}")
        else:
            self._codec.decode(stored, room)

    def decode(self, stored: Any, out: Any = None) -> Any:
        """Return what a stored chunk decodes to.

        Raises
        ------
        OversizedChunkError
            When it would be more than the limit.
        ValueError
            When the chunk is cut.
        """
        data = byte_view(np.ascontiguousarray(np.asarray(stored)))
        kind = self._codec.codec_id
        if kind in ("gzip", "zlib"):
            return self._inflated(data, lambda: _zlib.decompressobj(wbits=47), _zlib.error)
        if kind == "bz2":
            return self._inflated(data, bz2.BZ2Decompressor, OSError)
        if kind == "lzma":
            config = self._codec.get_config()
            arguments = {"format": config["format"], "filters": config["filters"]}
            return self._inflated(data, lambda: lzma.LZMADecompressor(**arguments), lzma.LZMAError)
        told = self._told(data)
        if told is None and kind == "zstd":
            return self._zstd_of_unknown_size(data)
        if told is not None:
            self._require(told)
        return self._codec.decode(data)

    def _told(self, data: memoryview) -> int | None:
        """Return the bytes that a chunk says it decodes to; None where it does not say."""
        kind = self._codec.codec_id
        if kind == "zstd":
            sizes = zstd_sizes(lambda at, count: bytes(data[at : at + count]), len(data))
            return None if sizes is None else sizes[0]
        if kind == "blosc":
            if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
                raise ValueError("a blosc chunk is cut")
            return int.from_bytes(data[4:8], "little")
        if kind == "lz4":
            if len(data) < 4:
                raise ValueError("an lz4 chunk is cut")
            return int.from_bytes(data[:4], "little")
        return None

    def _require(self, size: int) -> None:
        if size > self._limit:
            raise OversizedChunkError(
                f"inflates to {size} bytes, more than the {self._limit} of a chunk"
            )

    def _zstd_of_unknown_size(self, data: memoryview) -> Any:
        # Decoded into the room of one chunk, and no further.
        room = np.empty(self._limit, np.uint8)
        try:
            return self._codec.decode(data, room)
        except (RuntimeError, ValueError) as error:
            if "too small" in str(error):
                raise OversizedChunkError(
                    f"inflates to more than the {self._limit} bytes of a chunk"
                ) from error
            raise

    def _inflated(self, data: memoryview, opened: Any, failure: type[Exception]) -> bytes:
        # Several members may follow each other, as in a file that gzip appended to.
        result = bytearray()
        while len(data):
            worker = opened()
            pending: Any = data
            while True:
                room = self._limit + 1 - len(result)
                try:
                    result += worker.decompress(pending, room)
                except failure as error:
                    raise ValueError(f"does not inflate ({error})") from error
                if len(result) > self._limit:
                    raise OversizedChunkError(
                        f"inflates to more than the {self._limit} bytes of a chunk"
                    )
                if worker.eof:
                    break
                pending = getattr(worker, "unconsumed_tail", b"")
                if not pending and getattr(worker, "needs_input", True):
                    raise ValueError("is cut before its compressed stream ends")
            data = memoryview(worker.unused_data)
        return bytes(result)


@dataclass(frozen=True)
class BoundedBytesCodec(BytesBytesCodec):
    """A decompressor of format 3 that is bounded by its chunk.

    Attributes
    ----------
    inner : BytesBytesCodec
        The codec itself.
    codec : numcodecs.abc.Codec
        What it decodes with.
    first : bool
        Whether it was the first to encode, so that it gives just the chunk.
    """

    inner: Any
    codec: Any
    first: bool

    is_fixed_size = False

    def to_dict(self) -> Any:
        """Return the metadata of the codec."""
        return self.inner.to_dict()

    def evolve_from_array_spec(self, array_spec: Any) -> BoundedBytesCodec:
        """Return the codec as it is: decoding does not depend on the array."""
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Raise NotImplementedError: compressed sizes are not known ahead."""
        raise NotImplementedError

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        dtype = chunk_spec.dtype
        itemsize = dtype.itemsize if isinstance(dtype, np.dtype) else dtype.item_size
        nbytes = prod(chunk_spec.shape) * itemsize
        limit = nbytes if self.first else nbytes + nbytes // 64 + _SLACK
        data = BoundedCodec(self.codec, limit).decode(chunk_bytes.as_array_like())
        return chunk_spec.prototype.buffer.from_array_like(np.frombuffer(data, np.uint8))

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


def bound(array: zarr.Array) -> None:
    """Make an open array decode no chunk to more than its size.

    A pipeline of another kind than zarr's own is left as it is.
    """
    inner = array._async_array
    pipeline = inner.codec_pipeline
    if type(pipeline) is not BatchedCodecPipeline:
        return
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        codecs = [_bounded_v2(metadata)]
    else:
        codecs = _bounded(tuple(pipeline))
    object.__setattr__(inner, "codec_pipeline", BatchedCodecPipeline.from_codecs(codecs))


def _bounded_v2(metadata: Any) -> V2Codec:
    compressor = metadata.compressor
    if compressor is not None:
        dtype = metadata.dtype
        itemsize = dtype.itemsize if isinstance(dtype, np.dtype) else dtype.item_size
        nbytes = prod(metadata.chunks) * itemsize
        exact = not metadata.filters
        limit = nbytes if exact else _FILTER_GROWTH * nbytes + _SLACK
        compressor = BoundedCodec(compressor, limit)
    return V2Codec(filters=metadata.filters, compressor=compressor)


def _bounded(codecs: tuple[Any, ...]) -> list[Any]:
    result: list[Any] = []
    first = True
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            codec = ShardingCodec(
                chunk_shape=codec.chunk_shape,
                codecs=_bounded(codec.codecs),
                index_codecs=codec.index_codecs,
                index_location=codec.index_location,
            )
        elif isinstance(codec, BytesBytesCodec):
            names = ("_gzip_codec", "_zstd_codec", "_blosc_codec", "_codec")
            own = next((getattr(codec, n) for n in names if hasattr(codec, n)), None)
            if own is not None and getattr(own, "codec_id", "") in _BOUNDED:
                codec = BoundedBytesCodec(codec, own, first)
            first = False
        result.append(codec)
    return result
