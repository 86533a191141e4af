"""How a Zarr array is laid out: metadata and codecs from what is known of the array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zarr
from zarr.storage import LocalStore, MemoryStore

from normcli.arrays.zarr_describe import V2_DIMS
from normcli.domain.array_info import ArrayInfo
from normcli.zarr_loop import hush_zarr

# A chunk of zeros that is not stored could not be told from a lost one.
CONFIG: Any = {"write_empty_chunks": True}
_CHECKSUM = {"name": "crc32c"}
# zarr's own default, which detects no damage.
_DEFAULT_COMPRESSORS = [{"name": "zstd", "configuration": {"level": 0, "checksum": False}}]


def settings_of(array: zarr.Array) -> dict[str, Any]:
    """Return the metadata of an array without its attributes."""
    settings: Mapping[str, Any] = array.metadata.to_dict()
    return {name: value for name, value in settings.items() if name != "attributes"}


def create_array(store: LocalStore | MemoryStore, inner: str, info: ArrayInfo) -> zarr.Array:
    """Create an array in a store, with the codecs that `info` names."""
    codecs = info.codecs
    version = codecs.get("zarr_format", 3)
    chunks = tuple(max(1, n) for n in info.chunks or info.shape)
    attrs = {name: value for name, value in info.attrs.items() if name != V2_DIMS}
    options: dict[str, Any] = {}
    if "fill_value" in codecs:
        options["fill_value"] = codecs["fill_value"]
    if version == 2:
        if info.dims:
            attrs[V2_DIMS] = list(info.dims)
        options.update(_options_2(codecs))
    else:
        options.update(_options_3(codecs, info))
    hush_zarr()
    return zarr.create_array(
        store,
        name=inner or None,
        shape=info.shape,
        dtype=info.dtype,
        chunks=chunks,
        attributes=attrs,
        zarr_format=version,
        config=CONFIG,
        **options,
    )


def _options_2(codecs: Mapping[str, Any]) -> dict[str, Any]:
    from numcodecs import get_codec

    compressors = codecs.get("compressors", "auto")
    options: dict[str, Any] = {
        "order": codecs.get("order", "C"),
        "chunk_key_encoding": {"name": "v2", "separator": codecs.get("separator", ".")},
        "filters": [get_codec(config) for config in codecs.get("filters", ())] or None,
    }
    if compressors != "auto":
        options["compressors"] = get_codec(compressors[0]) if compressors else None
    return options


def _options_3(codecs: Mapping[str, Any], info: ArrayInfo) -> dict[str, Any]:
    options: dict[str, Any] = {
        "filters": list(codecs.get("filters", ())) or None,
        "compressors": _with_checksum(codecs.get("compressors", "auto")),
    }
    if info.dims:
        options["dimension_names"] = [name or None for name in info.dims]
    if info.shards:
        location = codecs.get("index_location", "end")
        options["shards"] = {"shape": info.shards, "index_location": location}
    if "chunk_key_encoding" in codecs:
        options["chunk_key_encoding"] = codecs["chunk_key_encoding"]
    if not info.dtype.isnative:
        # Format 3 keeps the byte order in this codec.
        options["serializer"] = {"name": "bytes", "configuration": {"endian": "big"}}
    return options


def _with_checksum(compressors: Any) -> list[Mapping[str, Any]]:
    """Return the compressors of a format 3 array, with a checksum of what they leave.

    In a sharded array these are the codecs of the inner chunks; the index has a checksum anyway.
    """
    if compressors == "auto":
        compressors = _DEFAULT_COMPRESSORS
    known: list[Mapping[str, Any]] = [dict(codec) for codec in compressors]
    return known if _CHECKSUM in known else [*known, _CHECKSUM]
