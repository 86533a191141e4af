"""safetensors: tensors by name, attributes as JSON text in the metadata key ``normcli``."""

from __future__ import annotations

import json
import os
import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from normcli.bundles.attributes import ATTRIBUTES, attributes_from_text, attributes_text
from normcli.bundles.bundle import Bundle
from normcli.bundles.element_types import dense_native, type_from_name
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, UsageError, missing_package

_METADATA = "__metadata__"
_TYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen tensors of a safetensors file, and none of the others.

    Raises
    ------
    InputError
        When the file is malformed, a chosen tensor has a type that normcli does not read, or
        the package safetensors is not installed.
    """
    size = require_file(path)
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise missing_package(path, "safetensors", "safetensors") from error
    with reading(path, "a safetensors file"):
        # The library checks that header, offsets and file size agree; it has no bfloat16 in numpy.
        with safe_open(path, framework="numpy"):
            pass
        with Path(path).open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
            metadata = header.pop(_METADATA, None) or {}
            attrs = {}
            if ATTRIBUTES in metadata:
                attrs = attributes_from_text(metadata[ATTRIBUTES], path)
            allowance = Allowance(path, size)
            arrays = {
                name: _load(file, 8 + length, header[name], name, path, allowance)
                for name in choose(tuple(header))
            }
    return Bundle(arrays, attrs)


def write(path: str, bundle: Bundle) -> None:
    """Write tensors and attributes to a safetensors file.

    Raises
    ------
    InputError
        When the package safetensors is not installed.
    UsageError
        When a name is reserved.
    """
    require_writer(path)
    from safetensors.numpy import save

    if _METADATA in bundle.arrays:
        raise UsageError(f"No array of a .safetensors file may be called {_METADATA!r}.")
    tensors = {name: dense_native(values) for name, values in bundle.arrays.items()}
    Path(path).write_bytes(save(tensors, {ATTRIBUTES: attributes_text(bundle.attrs)}))


def require_writer(path: str) -> None:
    """Raise InputError, before anything is computed, where the package safetensors is missing."""
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError as error:
        raise missing_package(f"Writing {path}", "safetensors", "safetensors") from error


def _load(
    file: BinaryIO, base: int, entry: dict[str, Any], name: str, path: str, allowance: Allowance
) -> np.ndarray:
    where = f"{path}: {name!r}"
    dtype = type_from_name(_TYPES.get(entry["dtype"], entry["dtype"]), where)
    start, stop = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if stop - start != prod(shape) * dtype.itemsize:
        raise InputError(f"{where}: shape {shape} does not fit its {stop - start:,} bytes.")
    allowance.take(name, stop - start)
    file.seek(base + start, os.SEEK_SET)
    data = file.read(stop - start)
    values = np.frombuffer(data, dtype=dtype.newbyteorder("<")).reshape(shape)
    return np.array(values, dtype=dtype, order="C", copy=True)
