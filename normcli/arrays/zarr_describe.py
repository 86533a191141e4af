"""What an open Zarr array says of itself, in the words that all formats share."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from normcli.arrays.attributes import plain_attrs
from normcli.domain.array_info import ArrayInfo

V2_DIMS = "_ARRAY_DIMENSIONS"
# Filters that neither lose precision nor belong to one range of values or one type.
_KEPT_FILTERS = {"shuffle", "numcodecs.shuffle", "transpose"}
_LOSSY_COMPRESSORS = {"zfpy", "numcodecs.zfpy"}


def describe(array: zarr.Array) -> ArrayInfo:
    """Return shape, types, chunks, names and codecs of an array."""
    attrs = plain_attrs(array.attrs.asdict())
    names = attrs.pop(V2_DIMS, None)
    if array.metadata.zarr_format == 3:
        names = array.metadata.dimension_names
    dims = None
    if isinstance(names, (list, tuple)) and len(names) == array.ndim and any(names):
        dims = tuple(str(name or "") for name in names)
    return ArrayInfo(
        shape=tuple(int(n) for n in array.shape),
        dtype=_stored_dtype(array),
        chunks=tuple(array.chunks) or None,
        shards=tuple(array.shards) if array.shards else None,
        dims=dims,
        attrs=attrs,
        storage="zarr",
        codecs=_codecs(array),
    )


def _stored_dtype(array: zarr.Array) -> np.dtype:
    dtype = np.dtype(array.dtype)
    if array.metadata.zarr_format == 3 and dtype.kind in "iuf":
        # Format 3 keeps the byte order in a codec, and zarr tells the native type.
        endian = getattr(array.serializer, "endian", None)
        if getattr(endian, "value", endian) == "big":
            return dtype.newbyteorder(">")
    return dtype


def _codecs(array: zarr.Array) -> dict[str, Any]:
    """Return plain values from which a sink makes the same encoding."""
    metadata: Any = array.metadata  # of one of two classes, as the format is
    compressors: Any = array.compressors
    array_filters: Any = array.filters
    version = metadata.zarr_format
    codecs: dict[str, Any] = {"zarr_format": version}
    if version == 2:
        configs = [codec.get_config() for codec in compressors]
        filters = [codec.get_config() for codec in array_filters]
        label = "id"
        codecs["order"] = metadata.order
        codecs["separator"] = metadata.dimension_separator
    else:
        configs = [codec.to_dict() for codec in compressors]
        filters = [codec.to_dict() for codec in array_filters]
        label = "name"
        codecs["chunk_key_encoding"] = metadata.chunk_key_encoding.to_dict()
        if array.shards:
            # A string since zarr 3.2, an enumeration before.
            location = metadata.codecs[0].index_location
            codecs["index_location"] = getattr(location, "value", location)
    codecs["filters"] = [config for config in filters if config[label] in _KEPT_FILTERS]
    lossy = any(config[label] in _LOSSY_COMPRESSORS for config in configs)
    codecs["compressors"] = "auto" if lossy else configs
    fill = array.fill_value
    codecs["fill_value"] = fill.item() if isinstance(fill, np.generic) else fill
    return codecs
