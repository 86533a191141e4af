"""Which arrays carry checksums of their own."""

from __future__ import annotations

from typing import Any

from normcli.domain.array_info import ArrayInfo

# Codecs whose stored form ends with a checksum that decoding compares.
_CHECKED = {
    "crc32c",
    "crc32",
    "adler32",
    "fletcher32",
    "jenkins_lookup3",
    "gzip",
    "zlib",
    "bz2",
    "lzma",
}


def has_checksums(info: ArrayInfo, container: str) -> bool:
    """Whether a changed bit in the stored elements of an array is an error when it is read.

    Parameters
    ----------
    info : ArrayInfo
        The array.
    container : {"npy", "npz", "hdf5", "zarr"}
        Format of its container.
    """
    if container == "npz":
        return True
    if container == "hdf5":
        return bool(info.codecs.get("fletcher32")) or info.codecs.get("compression") == "gzip"
    codecs = (*info.codecs.get("compressors", ()), *info.codecs.get("filters", ()))
    return container == "zarr" and any(_is_checked(codec) for codec in codecs)


def _is_checked(codec: Any) -> bool:
    name = str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
    settings = codec.get("configuration", codec)
    return name in _CHECKED or (name == "zstd" and bool(settings.get("checksum")))
