"""Zarr stores in the making, written from any process of this file system."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from normcli.arrays.handles import PerProcess
from normcli.arrays.zarr import ROOT_ATTR, V2_DIMS
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.grid import Block
from normcli.errors import NormcliError, OutputError, UsageError
from normcli.publishing import Draft, output_error

# A chunk of zeros that is not stored could not be told from a lost one.
_CONFIG: Any = {"write_empty_chunks": True}


class ZarrSink:
    """One array at the root of a Zarr store, or several arrays in it.

    Parameters
    ----------
    path : Path or str
        Final name of the folder.
    arrays : mapping of str to ArrayInfo
        The arrays, by the names that `write` is given.
    paths : mapping of str to str
        Path of each inside the store; empty for the root.
    overwrite : bool
        Whether an earlier store may be replaced.
    """

    def __init__(
        self,
        path: Path | str,
        arrays: Mapping[str, ArrayInfo],
        paths: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        self.name = str(path)
        self.arrays: Mapping[str, ArrayInfo] = dict(arrays)
        self._paths = dict(paths)
        for info in self.arrays.values():
            if is_bfloat16(info.dtype):
                raise UsageError(
                    f"{path} would hold bfloat16, which zarr {zarr.__version__} cannot store.",
                    "Add --dtype float32.",
                )
        self._draft = Draft.beside(path, overwrite)
        self._handles = {
            key: PerProcess(partial(_open_draft, self._draft.path, inner), _forget)
            for key, inner in self._paths.items()
        }

    def create(self) -> None:
        """Lay out groups and arrays."""
        try:
            self._draft.path.mkdir()
            store = LocalStore(self._draft.path)
            for key, info in self.arrays.items():
                _create_array(store, self._paths[key], info)
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def write(self, array: str, block: Block, values: np.ndarray) -> None:
        """Write the elements of `block`, which holds whole chunks (or shards) of one array."""
        if not values.size:
            return
        try:
            self._handles[array].get()[block.slices] = values
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes under the key ``normcli`` of the root."""
        try:
            root = zarr.open(LocalStore(self._draft.path), mode="r+")
            known = root.attrs.get(ROOT_ATTR, {})
            root.attrs[ROOT_ATTR] = {**known, **attrs}  # type: ignore[dict-item]
        except Exception as error:  # zarr raises nearly anything
            raise self._failed(error) from error

    def publish(self) -> None:
        """Give the store its final name."""
        self._draft.publish()

    def discard(self) -> None:
        """Remove the draft."""
        self._draft.discard()

    def _failed(self, error: Exception) -> NormcliError:
        if isinstance(error, NormcliError):
            return error
        if isinstance(error, OSError):
            return output_error(self.name, error)
        return OutputError(f"{self.name} could not be written: {error}.")


def _create_array(store: LocalStore, inner: str, info: ArrayInfo) -> None:
    codecs = info.codecs
    version = codecs.get("zarr_format", 3)
    chunks = tuple(max(1, n) for n in info.chunks or info.shape)
    attrs = {name: value for name, value in info.attrs.items() if name != V2_DIMS}
    options: dict[str, Any] = {"compressors": codecs.get("compressors", "auto")}
    if "fill_value" in codecs:
        options["fill_value"] = codecs["fill_value"]
    if version == 2:
        if info.dims:
            attrs[V2_DIMS] = list(info.dims)
        options.update(_options_2(codecs, options["compressors"]))
    else:
        options.update(_options_3(codecs, info))
    zarr.create_array(
        store,
        name=inner or None,
        shape=info.shape,
        dtype=info.dtype,
        chunks=chunks,
        attributes=attrs,
        zarr_format=version,
        config=_CONFIG,
        **options,
    )


def _options_2(codecs: Mapping[str, Any], compressors: Any) -> dict[str, Any]:
    from numcodecs import get_codec

    options: dict[str, Any] = {
        "order": codecs.get("order", "C"),
        "chunk_key_encoding": {"name": "v2", "separator": codecs.get("separator", ".")},
        "filters": [get_codec(config) for config in codecs.get("filters", ())] or None,
    }
    if compressors != "auto":
        options["compressors"] = get_codec(compressors[0]) if compressors else None
    return options


def _options_3(codecs: Mapping[str, Any], info: ArrayInfo) -> dict[str, Any]:
    options: dict[str, Any] = {"filters": list(codecs.get("filters", ())) or None}
    if codecs.get("compressors") == []:
        options["compressors"] = None
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


def _open_draft(path: Path, inner: str) -> zarr.Array:
    array = zarr.open_array(LocalStore(path), path=inner, mode="r+")
    return array.with_config(_CONFIG)


def _forget(array: zarr.Array) -> None:
    """Do nothing: a local store keeps no file open."""
