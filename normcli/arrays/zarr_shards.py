"""The index of a shard: where in its file each inner chunk is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from normcli.arrays.zarr_documents import ArrayDocument, codec_name

_ENTRY = 16
_SUM = 4


def standard_index(sharding: Mapping[str, Any]) -> bool:
    """Whether an index is a plain table, with or without a checksum; only zarr reads others."""
    return _names(sharding) in (["bytes"], ["bytes", "crc32c"])


def inner_chunks(document: ArrayDocument) -> tuple[int, ...]:
    """Return the extents of what is compressed as one."""
    if document.sharding is None:
        return document.chunks
    return tuple(document.sharding["chunk_shape"])


def index_bytes(document: ArrayDocument) -> int:
    """Return the bytes of the index of one shard."""
    assert document.sharding is not None
    per_file = zip(document.chunks, inner_chunks(document), strict=True)
    count = prod(c // i for c, i in per_file)
    return _ENTRY * count + _SUM * (len(_names(document.sharding)) - 1)


def read_index(file: int, size: int, document: ArrayDocument) -> np.ndarray:
    """Read the index of an open shard.

    Parameters
    ----------
    file : int
        Descriptor of the shard.
    size : int
        Its bytes, at least those of the index.
    document : ArrayDocument
        Metadata of an array with a standard index.

    Returns
    -------
    ndarray of uint64, shape (chunks, 2)
        Offset and length of each inner chunk in C order; all bits are set where it is not stored.
        Shorter where the file was cut meanwhile.
    """
    assert document.sharding is not None
    codecs = _codecs(document.sharding)
    order = (codecs[0].get("configuration") or {}).get("endian", "little")
    length = index_bytes(document)
    table = length - _SUM * (len(codecs) - 1)
    at_start = document.sharding.get("index_location") == "start"
    data = os.pread(file, table, 0 if at_start else size - length)
    whole = len(data) // _ENTRY * _ENTRY
    return np.frombuffer(data[:whole], "<u8" if order == "little" else ">u8").reshape(-1, 2)


def _codecs(sharding: Mapping[str, Any]) -> list[Any]:
    return sharding.get("index_codecs", [{"name": "bytes"}, {"name": "crc32c"}])


def _names(sharding: Mapping[str, Any]) -> list[str]:
    return [codec_name(codec) for codec in _codecs(sharding)]
