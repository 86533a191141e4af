"""MATLAB files (.mat, versions 5 to 7.3): numeric arrays by name, fields of structures as ``s.f``.

Both kinds give MATLAB's own dimension order. Objects, functions, cells and text are left out.

The format of version 5 to 7 is read here and not by SciPy, whose compiled reader crashes on files
with a flipped byte (1.17.1: an array that says to be of type 128 ends the process by a
segmentation fault). Every length is compared with the bytes that there are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles import hdf5_file
from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import MAX_BYTES, Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
# MATLAB puts its own header before that of HDF5.
_USER_BLOCK = 512
_HEADER = 128

# Types of stored elements, and classes of arrays.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_STORED[13] = "u8"
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_NUMERIC |= {14: "i8", 15: "u8"}
_STRUCTURE = 2
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_CLASSES_7_3 = frozenset(
    ["double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)
_DEEPEST = 8
_MOST_AXES = 32


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen arrays of a MATLAB file.

    Raises
    ------
    InputError
        When the file is malformed, or of version 4.
    """
    size = require_file(path)
    with reading(path, "a MATLAB file"):
        with Path(path).open("rb") as file:
            header = file.read(_HEADER)
            file.seek(_USER_BLOCK)
            if file.read(len(_HDF5)) == _HDF5:
                return _read_7_3(path, choose)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if order is None:
            raise InputError(
                f"{path} is not a MATLAB file of version 5 to 7.3.", "In MATLAB: save -v7"
            )
        if size > MAX_BYTES:
            raise InputError(f"{path} has {size:,} bytes; files up to {MAX_BYTES:,} are read.")
        allowance = Allowance(path, size)
        found = {
            name: numbers
            for element in _elements(memoryview(Path(path).read_bytes())[_HEADER:], order)
            for name, numbers in _variables(element, order, allowance)
        }
        if not found:
            raise InputError(
                f"{path} holds no numeric arrays.", "Save arrays or structures, not objects."
            )
        return Bundle({name: found[name].array(path, name) for name in choose(tuple(found))})


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


@dataclass(frozen=True)
class _Numbers:
    """An array whose elements were not looked at yet."""

    stored: np.dtype | None
    dtype: np.dtype
    shape: tuple[int, ...]
    data: memoryview
    unreadable: str = ""

    def array(self, path: str, name: str) -> np.ndarray:
        where = f"{path}: {name!r}"
        if self.unreadable or self.stored is None:
            raise InputError(f"{where} holds {self.unreadable or 'an unknown type'}, not numbers.")
        count = prod(self.shape)
        if count * self.stored.itemsize != len(self.data):
            raise InputError(
                f"{where}: shape {self.shape} does not fit its {len(self.data):,} bytes."
            )
        flat = np.frombuffer(self.data, self.stored).astype(self.dtype)
        return np.array(flat.reshape(self.shape, order="F"), order="C")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements that follow each other in `data`."""
    place = 0
    while len(data) - place >= 8:
        first, length = struct.unpack_from(f"{order}II", data, place)
        if first >> 16:
            # Up to four bytes stand in the tag itself.
            kind, length, start = first & 0xFFFF, first >> 16, place + 4
            if length > 4:
                raise ValueError(f"a short element of {length} bytes")
            following = place + 8
        else:
            kind, start = first, place + 8
            following = start + length + (0 if kind == _COMPRESSED else -length % 8)
        if start + length > len(data):
            raise ValueError(
                f"an element of {length:,} bytes, where {len(data) - start:,} are left"
            )
        yield _Element(kind, data[start : start + length])
        place = following


def _variables(
    element: _Element, order: str, allowance: Allowance
) -> Iterator[tuple[str, _Numbers]]:
    if element.kind == _COMPRESSED:
        inflater = zlib.decompressobj()
        tag = inflater.decompress(element.data, 8)
        length = struct.unpack(f"{order}II", tag)[1]
        allowance.take("a compressed array", length)
        body = inflater.decompress(inflater.unconsumed_tail, length + 1)
        # The end of the stream is what checks its sum.
        if len(body) != length or not (inflater.eof or _ends(inflater)):
            raise ValueError("a compressed array that is cut or too long")
        element = _Element(_MATRIX, memoryview(body))
    if element.kind == _MATRIX:
        yield from _matrix(element.data, order, "", 0)


def _ends(inflater: Any) -> bool:
    return inflater.decompress(inflater.unconsumed_tail, 1) == b"" and inflater.eof


def _matrix(data: memoryview, order: str, name: str, depth: int) -> Iterator[tuple[str, _Numbers]]:
    parts = list(_elements(data, order))
    if len(parts) < 3 or depth == _DEEPEST:
        return  # An empty place in a structure.
    flags = int(_integers(parts[0], order)[0])
    shape = tuple(_integers(parts[1], order))
    if len(shape) > _MOST_AXES or any(extent < 0 for extent in shape):
        raise ValueError(f"an array of shape {shape[:_MOST_AXES]}")
    name = name or bytes(parts[2].data).decode("ascii", "replace")
    kind = flags & 0xFF
    if kind == _STRUCTURE and prod(shape) == 1 and len(parts) >= 5:
        width = _integers(parts[3], order)[0]
        names = bytes(parts[4].data)
        if width < 1 or len(names) % width or len(names) // width != len(parts) - 5:
            raise ValueError(f"the structure {name!r} with other fields than names")
        for number, part in enumerate(parts[5:]):
            field = names[number * width : (number + 1) * width].split(b"\0")[0]
            if part.kind == _MATRIX:
                yield from _matrix(
                    part.data, order, f"{name}.{field.decode('ascii', 'replace')}", depth + 1
                )
    elif kind in _NUMERIC and len(parts) >= 4:
        code = _STORED.get(parts[3].kind)
        odd = "complex numbers" if flags & _COMPLEX else "bool" if flags & _LOGICAL else ""
        stored = None if code is None else np.dtype(order + code)
        yield name, _Numbers(stored, np.dtype(_NUMERIC[kind]), shape, parts[3].data, odd)


def _integers(element: _Element, order: str) -> list[int]:
    code = _STORED.get(element.kind, "")
    if code not in ("i4", "u4"):
        raise ValueError(f"an element of type {element.kind} in place of integers")
    values = np.frombuffer(element.data, np.dtype(order + code)).tolist()
    if not values:
        raise ValueError("an element without its integers")
    return values


def _read_7_3(path: str, choose: Choose) -> Bundle:
    numeric = _numeric_7_3(path)
    names: dict[str, str] = {}

    def named(found: tuple[str, ...]) -> list[str]:
        own = {n.replace("/", "."): n for n in found if n in numeric}
        if not own:
            raise InputError(
                f"{path} holds no numeric arrays.", "Save arrays or structures, not objects."
            )
        names.update({name: own[name] for name in choose(tuple(own))})
        return list(names.values())

    bundle = hdf5_file.read(path, named)
    # HDF5 lists MATLAB's dimensions the other way round.
    return Bundle({name: np.array(bundle.arrays[own].T, order="C") for name, own in names.items()})


def _numeric_7_3(path: str) -> set[str]:
    """Return the datasets that are numbers to MATLAB: text is stored as integers too."""
    import h5py

    found = set()
    with hdf5_file.opened(path) as file:
        for name, item in hdf5_file.objects(file):
            if name.startswith("#") or not isinstance(item, h5py.Dataset):
                continue
            kind = item.attrs.get("MATLAB_class", b"")
            word = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
            if word in _CLASSES_7_3 and "MATLAB_empty" not in item.attrs:
                found.add(name)
    return found
