"""Which arrays take long to decode."""

from __future__ import annotations

from typing import Any

from normcli.domain.array_info import ArrayInfo

# What these do costs no more than memory that a program has not touched before: two passes over
# 512 MiB of blosc-lz4 took 1.7 to 2.0 s of processor to be decoded twice, and 1.3 to 2.7 s to be
# decoded once and held, as the machine had such memory at hand or not.
_QUICK = {"crc32c", "crc32", "adler32", "fletcher32", "shuffle", "lz4", "transpose", "bytes"}
_QUICK_IN_BLOSC = {"lz4", "lz4hc", "blosclz", "snappy"}


def is_slow_to_decode(info: ArrayInfo) -> bool:
    """Whether decoding an array costs more than holding it in memory."""
    if info.storage == "hdf5":
        return info.codecs.get("compression") is not None
    codecs = (*info.codecs.get("compressors", ()), *info.codecs.get("filters", ()))
    return any(not _is_quick(codec) for codec in codecs)


def _is_quick(codec: Any) -> bool:
    name = str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
    settings = codec.get("configuration", codec)
    return name in _QUICK or (name == "blosc" and settings.get("cname") in _QUICK_IN_BLOSC)
