"""Decoders of the compressions that are registered for HDF5, none of which comes with HDF5.

What a stored chunk says of itself is compared with what the dataset declares before anything is
decoded, and every decoder is given memory of exactly the declared size.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Takes a stored chunk and fills an array of bytes; ValueError or RuntimeError where it cannot.
Decoder = Callable[[np.ndarray, np.ndarray], None]

LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD = 32000, 32001, 32004, 32008, 32015

_BLOSC_HEADER = 16
_BLOSC_COPIED = 0x02
# Of LZ4 and of bitshuffle: the decoded bytes, and those of one block.
_BLOCKS_HEADER = 12
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BITSHUFFLE_LZ4, _BITSHUFFLE_ZSTD = 2, 3


def decoder_of(code: int, parameters: Sequence[int], itemsize: int) -> Decoder | None:
    """Return the decoder of a filter; None where only HDF5 can decode it.

    Parameters
    ----------
    code : int
        HDF5's number of the filter.
    parameters : sequence of int
        Its client data in the dataset.
    itemsize : int
        Bytes of one element.
    """
    needed = {LZF: "imagecodecs", LZ4: "imagecodecs"}.get(code)
    if code == BITSHUFFLE:
        needed = "imagecodecs" if keeps_size(code, parameters) else "bitshuffle"
    if needed is not None and importlib.util.find_spec(needed) is None:
        return None
    if code == BITSHUFFLE:
        return _bitshuffle(parameters, itemsize)
    return {LZF: _lzf, BLOSC: _blosc, LZ4: _lz4, ZSTD: _zstd}.get(code)


def keeps_size(code: int, parameters: Sequence[int]) -> bool:
    """Whether a filter only rearranges bytes."""
    return code == BITSHUFFLE and not any(parameters[4:5])


def _lzf(data: np.ndarray, out: np.ndarray) -> None:
    codecs: Any = importlib.import_module("imagecodecs")
    _require(len(codecs.lzf_decode(data, out=out)), len(out))


def _blosc(data: np.ndarray, out: np.ndarray) -> None:
    codecs: Any = importlib.import_module("numcodecs.blosc")
    if len(data) < _BLOSC_HEADER:
        raise ValueError("too short for its header")
    flags = int(data[2])
    decoded, block, stored = (int(n) for n in data[4:_BLOSC_HEADER].view("<u4"))
    _require(decoded, len(out))
    if stored != len(data):
        raise ValueError(f"said to have {stored} bytes where {len(data)} are stored")
    if not 0 < block <= max(decoded, 1) or not data[3]:
        raise ValueError("a damaged header")
    if flags & _BLOSC_COPIED and stored != decoded + _BLOSC_HEADER:
        raise ValueError("a damaged header")
    codecs.decompress(data, out)


def _zstd(data: np.ndarray, out: np.ndarray) -> None:
    codecs: Any = importlib.import_module("numcodecs.zstd")
    _require(_zstd_content(data[:18].tobytes()), len(out))
    codecs.decompress(data, out)


def _zstd_content(head: bytes) -> int:
    """Return the size that a Zstandard frame declares (RFC 8878, 3.1.1.1)."""
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        raise ValueError("not a Zstandard frame")
    descriptor = head[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    first = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    field = head[first : first + width]
    if not width or len(field) < width:
        raise ValueError("a frame that does not tell its size")
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


def _lz4(data: np.ndarray, out: np.ndarray) -> None:
    codecs: Any = importlib.import_module("imagecodecs")
    block = _block_bytes(data, out)
    for number, (end, length) in enumerate(_stored_blocks(data, len(out), block)):
        target = out[number * block : (number + 1) * block]
        stored = data[end - length : end]
        if length == len(target):  # as it was, because LZ4 made it no smaller
            target[:] = stored
        else:
            _require(len(codecs.lz4_decode(stored, out=target)), len(target))


def _bitshuffle(parameters: Sequence[int], itemsize: int) -> Decoder | None:
    _, _, width, block, packing, *_ = (*parameters, 0, 0, 0, 0, 0)
    if width != itemsize or itemsize not in (1, 2, 4, 8) or block % 8:
        return None
    items = np.dtype(f"u{itemsize}")
    if packing:
        return _packed_bitshuffle(packing, items)
    codecs: Any = importlib.import_module("imagecodecs")

    def plain(data: np.ndarray, out: np.ndarray) -> None:
        _require(len(data), len(out))
        if len(out) % itemsize:
            raise ValueError(f"{len(out)} bytes do not hold whole elements")
        codecs.bitshuffle_decode(data.view(items), blocksize=block, out=out.view(items))

    return plain


def _packed_bitshuffle(packing: int, items: np.dtype) -> Decoder | None:
    # Blocks are of 8 KiB, so that one call for each, with the interpreter lock taken again after
    # it, ran at 1.3 GB/s on two threads, where this library decodes a whole chunk at 2.6 on each.
    library: Any = importlib.import_module("bitshuffle")
    name = {_BITSHUFFLE_LZ4: "decompress_lz4", _BITSHUFFLE_ZSTD: "decompress_zstd"}.get(packing)
    decompress = getattr(library, name or "", None)
    if decompress is None:
        return None

    def packed(data: np.ndarray, out: np.ndarray) -> None:
        block = _block_bytes(data, out)
        group = 8 * items.itemsize
        if block % group or len(out) % items.itemsize:
            raise ValueError("a damaged header")
        # The library takes the sizes of blocks on trust. Elements that do not fill a group of
        # eight follow as they are.
        body = len(out) // group * group
        *_, (end, _) = ((_BLOCKS_HEADER, 0), *_stored_blocks(data, body, block))
        _require(len(data) - end, len(out) - body)
        shape = (len(out) // items.itemsize,)
        out.view(items)[:] = decompress(
            data[_BLOCKS_HEADER:], shape, items, block // items.itemsize
        )

    return packed


def _block_bytes(data: np.ndarray, out: np.ndarray) -> int:
    if len(data) < _BLOCKS_HEADER:
        raise ValueError("too short for its header")
    head = data[:_BLOCKS_HEADER].tobytes()
    _require(int.from_bytes(head[:8], "big"), len(out))
    block = int.from_bytes(head[8:], "big")
    if not block:
        raise ValueError("a damaged header")
    return block


def _stored_blocks(data: np.ndarray, size: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield where each stored block of `size` decoded bytes ends, and its length."""
    view = memoryview(data)  # type: ignore[arg-type]
    at = _BLOCKS_HEADER
    for _ in range(0, size, block):
        length = int.from_bytes(view[at : at + 4], "big")
        at += 4 + length
        if not 0 < length < 1 << 31 or at > len(view):
            raise ValueError("a block that reaches beyond its end")
        yield at, length


def _require(size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"{size} bytes instead of {expected}")
