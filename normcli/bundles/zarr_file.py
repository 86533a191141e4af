"""Zarr: a group in format 3 with one array each, attributes in its attribute ``normcli``."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.attributes import ATTRIBUTES, attributes_text, parse_json
from normcli.bundles.bundle import Bundle
from normcli.bundles.element_types import RAW_BFLOAT16, dense_native, from_storage
from normcli.bundles.guards import Allowance, one_line, pickle_error, reading, require_folder
from normcli.bundles.selection import Choose, everything
from normcli.domain.dtypes import is_bfloat16
from normcli.errors import InputError, SafetyError, UsageError

# zarr-python has no bfloat16: its bits are stored as uint16 with this attribute.
_ELEMENTS = "normcli_dtype"
_COMPRESSORS = {"zstd", "gzip", "zlib", "blosc", "lz4", "bz2", "lzma"}
_CODECS = {"bytes", "endian", "transpose", "crc32c", "sharding_indexed"} | _COMPRESSORS
_MAX_DOCUMENT = 16 * 2**20
_ONE_CHUNK = 64 * 2**20


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read a Zarr group of format 2 or 3; arrays in groups have names such as ``group/array``.

    Raises
    ------
    InputError
        When the store is malformed, or chunks of a sidecar are missing.
    SafetyError
        When it holds links, or codecs that run code.
    """
    require_folder(path)
    with reading(path, "a Zarr group"), warnings.catch_warnings():
        # zarr warns of files that are none of its own, such as .DS_Store.
        warnings.simplefilter("ignore")
        import zarr

        from normcli.zarr_loop import hush_zarr

        hush_zarr()
        stored, documented = _inspect(path)
        allowance = Allowance(path, stored)
        store = zarr.storage.LocalStore(path, read_only=True)
        if "" in documented:
            array = zarr.open_array(store, mode="r")
            return Bundle({n: _load(array, n, path, allowance, False) for n in choose(("",))})
        try:
            # Consolidated metadata may be stale.
            root = zarr.open_group(store, mode="r", use_consolidated=False)
        except FileNotFoundError as error:
            raise InputError(f"{path} holds no Zarr group (no zarr.json, no .zgroup).") from error
        members = dict(root.members(max_depth=None))
        names = tuple(name for name, item in members.items() if isinstance(item, zarr.Array))
        # zarr passes over an array whose document it does not understand, as if it were not there.
        lost = sorted(documented - set(names))
        if lost:
            raise InputError(f"{path}: the metadata of {lost[0]!r} describe no array.")
        attrs = root.attrs.asdict().get(ATTRIBUTES, {})
        if not isinstance(attrs, dict):
            raise InputError(f"{path}: the attributes {ATTRIBUTES!r} are no JSON object.")
        ours = ATTRIBUTES in root.attrs
        arrays = {n: _load(members[n], n, path, allowance, ours) for n in choose(names)}
        return Bundle(arrays, attrs)


def write(path: str, bundle: Bundle) -> None:
    """Write arrays and attributes to a Zarr group with checksums.

    Raises
    ------
    UsageError
        When an array has a name that Zarr does not take.
    """
    import zarr
    from zarr.codecs import ZstdCodec

    from normcli.zarr_loop import hush_zarr

    attrs = json.loads(attributes_text(bundle.attrs))
    store = zarr.storage.LocalStore(path)
    hush_zarr()
    group = zarr.create_group(store, zarr_format=3, attributes={ATTRIBUTES: attrs})
    for name, values in bundle.arrays.items():
        parts = name.split("/")
        if any(part in ("", ".", "..", "zarr.json") or part[:2] == "__" for part in parts):
            raise UsageError(f"{name!r} is no name for a Zarr array.")
        dense = dense_native(values)
        half = is_bfloat16(dense.dtype)
        dense = dense.view(np.uint16) if half else dense
        target = group.create_array(
            name,
            shape=dense.shape,
            dtype=dense.dtype,
            chunks=_chunks(dense),
            compressors=ZstdCodec(level=1, checksum=True),
            attributes={_ELEMENTS: "bfloat16"} if half else {},
            config={"write_empty_chunks": True},
        )
        target[...] = dense


def _chunks(values: np.ndarray) -> tuple[int, ...]:
    chunks = [max(1, extent) for extent in values.shape]
    for axis in range(values.ndim):
        while int(np.prod(chunks)) * values.itemsize > _ONE_CHUNK and chunks[axis] > 1:
            chunks[axis] = -(-chunks[axis] // 2)
    return tuple(chunks)


def _load(item: Any, name: str, path: str, allowance: Allowance, ours: bool) -> np.ndarray:
    where = f"{path}: {name!r}"
    allowance.take(name, item.size * item.dtype.itemsize)
    # Other writers leave out chunks of zeros; a sidecar of ours has them all.
    if ours and item.size and item.nchunks_initialized < item.nchunks:
        raise InputError(
            f"{where}: {item.nchunks - item.nchunks_initialized} of {item.nchunks} chunks are "
            "missing."
        )
    half = item.attrs.get(_ELEMENTS) == "bfloat16" and item.dtype == np.uint16
    values = np.asarray(item[...])
    return from_storage(values.view(RAW_BFLOAT16) if half else values, where)


def _inspect(path: str) -> tuple[int, set[str]]:
    """Check every file of the store before zarr opens it.

    Returns
    -------
    int
        Bytes that they take.
    set of str
        Names of the arrays by their documents; the empty name where the store is one array.
    """
    total = 0
    arrays = set()
    for folder, folders, files in os.walk(path):
        for entry in (*folders, *files):
            full = Path(folder, entry)
            if full.is_symlink():
                raise SafetyError(
                    f"{full} is a symbolic link to {os.readlink(full)!r}; links in a store are "
                    "not followed."
                )
        for file in files:
            full = Path(folder, file)
            if not full.is_file():
                raise InputError(f"{full} is not a regular file.")
            total += full.stat().st_size
            if file in ("zarr.json", ".zarray") and _describes_array(full):
                name = Path(folder).relative_to(path).as_posix()
                arrays.add("" if name == "." else name)
    return total, arrays


def _describes_array(file: Path) -> bool:
    """Check a document of metadata; return whether it is that of an array."""
    if file.stat().st_size > _MAX_DOCUMENT:
        raise InputError(f"{file} has {file.stat().st_size:,} bytes, too many for metadata.")
    try:
        document = parse_json(file.read_text("utf-8"), constants=True)
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {one_line(error)}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{file} holds no JSON object.")
    version = 3 if file.name == "zarr.json" else 2
    kind = "array" if version == 2 else document.get("node_type")
    if document.get("zarr_format") != version or kind not in ("group", "array"):
        raise InputError(f"{file} describes neither a Zarr group nor an array.")
    for codec in _codecs(document):
        if codec.endswith("pickle"):
            raise pickle_error(str(file))
        if codec.removeprefix("numcodecs.") not in _CODECS:
            raise InputError(f"{file} asks for the codec {codec!r}, which normcli does not use.")
    return kind == "array"


def _codecs(document: dict[str, Any]) -> list[str]:
    entries = [document.get("compressor")]
    for key in ("codecs", "filters"):
        listed = document.get(key)
        entries += listed if isinstance(listed, list) else []
    names = []
    for entry in entries:
        if isinstance(entry, dict):
            names.append(str(entry.get("name", entry.get("id"))))
            inner = entry.get("configuration")
            names += _codecs(inner) if isinstance(inner, dict) else []
        elif isinstance(entry, str):
            names.append(entry)
    return names
