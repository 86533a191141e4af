"""How an output is stored: as its input is, as far as the format of the output can."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from normcli.arrays.attributes import OF_STORED_VALUES
from normcli.arrays.paths import parse_path
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_bfloat16

_CHUNK_BYTES = 4 * 1024 * 1024
_STORAGE = {"npz": "npy"}


def output_info(source: ArrayInfo, dtype: np.dtype, text: str) -> ArrayInfo:
    """Return the description of the output for an input.

    Parameters
    ----------
    source : ArrayInfo
        The input.
    dtype : numpy.dtype
        Element type of the output; its byte order follows the input where the format is kept.
    text : str
        Name of the output.
    """
    kind = parse_path(text, "output").format
    storage = _STORAGE.get(kind, kind)
    kept = storage == source.storage
    dtype = _byte_order(dtype, source.dtype, kept)
    changed = dtype.newbyteorder("=") != source.dtype.newbyteorder("=")
    attrs = {
        name: value
        for name, value in source.attrs.items()
        if not (changed and name in OF_STORED_VALUES)
    }
    chunks, shards, codecs = _encoding(source, dtype, storage, changed)
    return ArrayInfo(
        shape=source.shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        dims=source.dims,
        attrs=attrs,
        storage=storage,
        fortran_order=source.fortran_order and kept and storage == "npy",
        codecs=codecs,
    )


def whole_row_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """Return chunks of about 4 MiB out of whole trailing axes.

    >>> whole_row_chunks((1000, 512, 512), 4)
    (4, 512, 512)
    >>> whole_row_chunks((10, 3000, 1000), 4)
    (1, 1048, 1000)
    """
    if not shape:
        return None
    chunks = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        below = prod(chunks[axis + 1 :]) * itemsize
        chunks[axis] = max(1, min(shape[axis], _CHUNK_BYTES // below))
        if chunks[axis] < shape[axis]:
            break
    return tuple(chunks)


_Encoding = tuple[tuple[int, ...] | None, tuple[int, ...] | None, Mapping[str, Any]]


def _encoding(source: ArrayInfo, dtype: np.dtype, storage: str, changed: bool) -> _Encoding:
    if storage not in ("hdf5", "zarr"):
        return None, None, {}
    if storage == source.storage:
        codecs = _retyped(source.codecs, dtype) if changed else source.codecs
        chunks = source.chunks
        if storage == "zarr" and chunks is None:  # inputs of unlike chunks were joined
            return whole_row_chunks(source.shape, dtype.itemsize), None, codecs
        return chunks, source.shards, codecs
    if storage == "hdf5":
        if source.chunks is None:
            return None, None, {}
        return source.chunks, None, _GZIP if source.codecs.get("compressors") else {}
    chunks = source.chunks or whole_row_chunks(source.shape, dtype.itemsize)
    return chunks, None, {"zarr_format": 3}


_GZIP = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


def _retyped(codecs: Mapping[str, Any], dtype: np.dtype) -> dict[str, Any]:
    """Return Zarr or HDF5 codecs without what belongs to the type of the input."""
    kept = {name: value for name, value in codecs.items() if name != "fill_value"}
    if "filters" in kept:
        kept["filters"] = [f for f in kept["filters"] if f.get("name") == "transpose"]
    if isinstance(kept.get("compressors"), list):
        kept["compressors"] = [_retyped_codec(codec, dtype) for codec in kept["compressors"]]
    return kept


def _retyped_codec(codec: Mapping[str, Any], dtype: np.dtype) -> Mapping[str, Any]:
    settings = codec.get("configuration", {})
    if "typesize" not in settings:
        return codec
    return {**codec, "configuration": {**settings, "typesize": dtype.itemsize}}


def _byte_order(dtype: np.dtype, source: np.dtype, kept: bool) -> np.dtype:
    if is_bfloat16(dtype) or dtype.itemsize == 1:
        return dtype
    big = kept and source.byteorder == ">"
    return dtype.newbyteorder(">" if big else "=")
