"""MATLAB files (.mat): numeric arrays by name, fields of structures as ``s.field``.

Versions 4 to 7 are read by SciPy, version 7.3 (HDF5) by h5py. Both give MATLAB's own dimension
order. Objects, functions and text are left out, and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.bundle import Bundle
from normcli.bundles.element_types import from_storage
from normcli.bundles.extras import missing_package
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
# MATLAB puts its own header before that of HDF5.
_USER_BLOCK = 512
_NUMERIC = frozenset(
    ["double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)
_DEEPEST = 8


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen arrays of a MATLAB file.

    Raises
    ------
    InputError
        When the file is malformed, or scipy is needed and not installed.
    """
    size = require_file(path)
    with Path(path).open("rb") as file:
        file.seek(_USER_BLOCK)
        version_7_3 = file.read(len(_HDF5)) == _HDF5
    if version_7_3:
        return _read_7_3(path, choose)
    try:
        from scipy import io
    except ImportError as error:
        raise missing_package(path, "scipy", "matlab") from error
    with reading(path, "a MATLAB file"):
        variables = io.whosmat(path)
        allowance = Allowance(path, size)
        arrays: dict[str, np.ndarray] = {}
        wanted = [n for n, _, kind in variables if kind in _NUMERIC or kind == "struct"]
        for name, shape, kind in variables:
            if kind in _NUMERIC:
                allowance.take(name, int(np.prod(shape, dtype=object)) * 8)
        loaded = io.loadmat(
            path,
            variable_names=wanted,
            mat_dtype=False,
            struct_as_record=True,
            verify_compressed_data_integrity=True,
        )
        for name in wanted:
            arrays.update(_fields(loaded[name], name, 0))
        return Bundle({n: from_storage(arrays[n], f"{path}: {n!r}") for n in choose(tuple(arrays))})


def _fields(value: np.ndarray, name: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    if value.dtype.names is None:
        if value.dtype.kind in "iuf":
            yield name, value
        return
    if value.size != 1 or depth == _DEEPEST:
        return  # An array of structures is no one layer.
    for field in value.dtype.names:
        inner = value.reshape(-1)[0][field]
        if isinstance(inner, np.ndarray):
            yield from _fields(inner, f"{name}.{field}", depth + 1)


def _read_7_3(path: str, choose: Choose) -> Bundle:
    from normcli.bundles import hdf5_file

    numeric = _numeric_7_3(path)
    names: dict[str, str] = {}

    def named(found: tuple[str, ...]) -> list[str]:
        names.update({n.replace("/", "."): n for n in found if n in numeric})
        if not names:
            raise InputError(f"{path} holds no numeric arrays.")
        chosen = list(choose(tuple(names)))
        for name in list(names):
            if name not in chosen:
                del names[name]
        return [names[name] for name in chosen]

    bundle = hdf5_file.read(path, named)
    # HDF5 lists MATLAB's dimensions the other way round.
    return Bundle({name: np.array(bundle.arrays[own].T, order="C") for name, own in names.items()})


def _numeric_7_3(path: str) -> set[str]:
    """Return the datasets that are numbers to MATLAB: text is stored as integers too."""
    import h5py

    found: set[str] = set()

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            kind = item.attrs.get("MATLAB_class", b"")
            word = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
            if word in _NUMERIC and "MATLAB_empty" not in item.attrs:
                found.add(name)

    with reading(path, "a MATLAB file"), h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
