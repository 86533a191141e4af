"""NPZ containers: stored members read by block in place, compressed ones as a whole."""

from __future__ import annotations

import contextlib
import importlib
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import ArrayEntry, WholeSource
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.files import (
    file_identity,
    first_bytes,
    read_error,
    require_file,
)
from normcli.arrays.handles import PerProcess
from normcli.arrays.npy import RawSource
from normcli.arrays.npy_format import NpyHeader, read_header, require_numbers, too_short
from normcli.arrays.sniffing import wrong_content
from normcli.domain.grid import Block
from normcli.errors import InputError
from normcli.retrying import read_at

ATTRS_MEMBER = "normcli"
_PIECE = 1 << 20
# isal's is several times as fast as zlib's.
_crc32: Any = zlib.crc32
with contextlib.suppress(ImportError):
    _crc32 = importlib.import_module("isal.isal_zlib").crc32
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class NpzSource(RawSource):
    """A stored member of an NPZ file, read in place.

    Parameters
    ----------
    path : Path or str
        The NPZ file.
    inner : str
        Name of the member, without ``.npy``.
    """

    def __init__(self, path: Path | str, inner: str) -> None:
        path = Path(path)
        name = f"{path}/{inner}"
        member = _member(path, inner)
        header = _header(path, member)
        _check_size(name, header, member)
        offset = data_offset(path, member)
        super().__init__(name, path, header, offset, inner)
        check = partial(_check_sum, path.absolute(), name, offset, member.file_size, member.CRC)
        self._checked = PerProcess(check, _nothing)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`; the first time, compare the checksum of the member."""
        self._checked.get()
        return super().read(block, buffer)


class PackedNpzSource(WholeSource):
    """A compressed member of an NPZ file, decompressed to memory when it is opened.

    Parameters
    ----------
    path : Path or str
        The NPZ file.
    inner : str
        Name of the member, without ``.npy``.
    """

    def __init__(self, path: Path | str, inner: str) -> None:
        self._path = Path(path)
        self._inner = inner
        self.name = f"{path}/{inner}"
        member = _member(self._path, inner)
        header = _header(self._path, member)
        require_numbers(header, self.name)
        _check_size(self.name, header, member)
        self.info = header.info
        self._values = self._inflate(member, header)

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`."""
        place: Any = (*block.slices, ...)
        order: Any = "F" if self.info.fortran_order else "C"
        values = block_array(block.shape, self.info.dtype.newbyteorder("="), buffer, order)
        values[...] = self._values[place]
        return values

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return path, size, mtime and fingerprint of the file."""
        return (file_identity(self._path, self._inner),)

    def close(self) -> None:
        """Do nothing: no handle is kept."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (PackedNpzSource, (self._path, self._inner))

    def _inflate(self, member: zipfile.ZipInfo, header: NpyHeader) -> np.ndarray:
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(member) as file:
                file.read(header.length)
                data = file.read(header.nbytes)
                # The checksum is compared at the end of the member.
                while file.read(_PIECE):
                    pass
        except OSError as error:
            raise read_error(self.name, error) from error
        except _DAMAGED as error:
            raise InputError(f"{self.name} is damaged: {error}.") from error
        if len(data) < header.nbytes:
            raise InputError(f"{self.name} is cut: {len(data)} of {header.nbytes} bytes.")
        order: Any = "F" if header.fortran_order else "C"
        return np.frombuffer(data, header.dtype).reshape(header.shape, order=order)


def open_member(path: Path, inner: str) -> RawSource | PackedNpzSource:
    """Return the source that suits the member's compression."""
    if _member(path, inner).compress_type == zipfile.ZIP_STORED:
        return NpzSource(path, inner)
    return PackedNpzSource(path, inner)


def list_members(path: Path, damage: list[InputError] | None = None) -> list[ArrayEntry]:
    """Return the arrays of an NPZ file, whatever their types are.

    Parameters
    ----------
    path : Path
        The file.
    damage : list of InputError, optional
        Takes why a member cannot be listed; without it, the first such member ends the listing.
    """
    entries = []
    members = _members(path)
    with zipfile.ZipFile(path) as archive:
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name == ATTRS_MEMBER:
                continue
            try:
                header = _header_in(archive, member, f"{path}/{name}")
            except InputError as error:
                if damage is None:
                    raise
                damage.append(error)
                continue
            entries.append(ArrayEntry(name, header.info, member.compress_size))
    return entries


def list_contents(path: Path) -> dict[str, bool]:
    """Return the names of all members of an NPZ file, and whether each is an array."""
    found = {}
    for member in _members(path):
        name = member.filename.removesuffix(".npy")
        if name != ATTRS_MEMBER:
            found[name] = name != member.filename
    return found


def has_mark(path: Path) -> bool:
    """Whether normcli wrote the file as a container of several arrays."""
    return any(member.filename == f"{ATTRS_MEMBER}.npy" for member in _members(path))


def _members(path: Path) -> list[zipfile.ZipInfo]:
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError as error:
        raise read_error(str(path), error) from error
    except _DAMAGED as error:
        head = first_bytes(path)
        if not head.startswith(b"PK"):
            raise wrong_content(str(path), "an NPZ file", head) from error
        raise InputError(f"{path} is a damaged NPZ file: {error}.") from error
    seen: set[str] = set()
    for member in members:
        if member.filename in seen:
            raise InputError(f"{path} holds two members called {member.filename}.")
        seen.add(member.filename)
    return members


def _member(path: Path, inner: str) -> zipfile.ZipInfo:
    members = {member.filename: member for member in _members(path)}
    member = members.get(f"{inner}.npy")
    if member is None:
        names = ", ".join(name.removesuffix(".npy") for name in list(members)[:20]) or "nothing"
        raise InputError(f"{path} has no array {inner}.", f"It holds {names}.")
    return member


def _header(path: Path, member: zipfile.ZipInfo) -> NpyHeader:
    with zipfile.ZipFile(path) as archive:
        return _header_in(archive, member, f"{path}/{member.filename.removesuffix('.npy')}")


def _header_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NpyHeader:
    if member.flag_bits & 1:
        raise InputError(f"{name} is encrypted.")
    try:
        with archive.open(member) as file:
            return read_header(file, name)  # type: ignore[arg-type]
    except OSError as error:
        raise read_error(name, error) from error
    except _DAMAGED as error:
        raise InputError(f"{name} is damaged: {error}.") from error


def _check_size(name: str, header: NpyHeader, member: zipfile.ZipInfo) -> None:
    needed = header.length + header.nbytes
    if member.file_size < needed:
        raise too_short(name, header, needed, member.file_size)
    if member.file_size > needed + _PIECE:
        raise InputError(f"{name} has {member.file_size - needed} bytes after its array.")
    # Deflate packs 1032 bytes into one at best; more is a lie of the index.
    most = 1100 * member.compress_size + 1100
    if member.compress_type == zipfile.ZIP_STORED:
        most = member.compress_size
    if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and needed > most:
        raise too_short(name, header, needed, member.compress_size)


def _check_sum(path: Path, name: str, offset: int, size: int, expected: int) -> bool:
    """Compare a stored member with its checksum: one more read of it, at some GB/s."""
    found = 0
    buffer = memoryview(bytearray(4 * _PIECE))
    file = os.open(path, os.O_RDONLY)
    try:
        for begin in range(0, size, len(buffer)):
            part = buffer[: min(len(buffer), size - begin)]
            if read_at(file, part, offset + begin, name) < len(part):
                raise InputError(f"{name} is cut.", "Copy or download it again.")
            found = _crc32(part, found)
    except OSError as error:
        raise read_error(name, error) from error
    finally:
        os.close(file)
    if found != expected:
        raise InputError(
            f"{name} is damaged: it fails its checksum (CRC-32).", "Copy or download it again."
        )
    return True


def _nothing(checked: bool) -> None:
    """Do nothing: there is nothing to close."""


def data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin in its file."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        fixed = file.read(_LOCAL_HEADER.size)
    if len(fixed) < _LOCAL_HEADER.size:
        raise InputError(f"{path} is cut in the header of {member.filename}.")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(fixed)
    if magic != b"PK\x03\x04":
        raise InputError(f"{path} is damaged: {member.filename} is not where its index says.")
    return member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
