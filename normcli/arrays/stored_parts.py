"""The parts of an output read back from storage, without the libraries that wrote them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from normcli.arrays.access import ArraySource, StoredPart
from normcli.arrays.checksums import PartChecksum, part_checksum
from normcli.arrays.files import read_error
from normcli.arrays.opening import open_source
from normcli.arrays.part_keys import parse_block_key, parse_span_key
from normcli.arrays.runs import byte_view
from normcli.arrays.zarr_files import files_below
from normcli.errors import InputError
from normcli.retrying import reopened, retried

_PIECE = 1 << 20
# What zipfile raises for a member that is not as it was written.
_DAMAGED = (zipfile.BadZipFile, zlib.error)


class PartError(Exception):
    """A part is not as the manifest says; the message tells what is wrong and where."""


class StoredFiles:
    """The parts of a Zarr store: its files.

    Parameters
    ----------
    root : Path
        The folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = root.resolve()

    def check(self, part: StoredPart) -> None:
        """Read a part and compare it.

        Raises
        ------
        PartError
            When it is missing, has another length, or has changed.
        TransientError
            When storage fails again and again: that says nothing of the part.
        """
        path = self._root / part.key
        where = f"{part.key} (file {path})"
        if not path.resolve().is_relative_to(self._real) or path.is_symlink():
            raise PartError(f"{where} is a link, or outside of the store")

        def summed() -> PartChecksum:
            with open(path, "rb", opener=_no_links) as file:
                size = os.fstat(file.fileno()).st_size
                if size != part.nbytes:
                    raise PartError(f"{where} has {size} bytes instead of {part.nbytes}")
                checksum = PartChecksum()
                while piece := file.read(_PIECE):
                    checksum.add(piece)
            return checksum

        try:
            checksum = retried(summed, where)
        except FileNotFoundError:
            raise PartError(f"{where} is missing") from None
        except OSError as error:
            raise PartError(f"{where} cannot be read: {error.strerror or error}") from error
        _compare(where, part, checksum.nbytes, checksum.value)

    def surplus(self, parts: Mapping[str, StoredPart]) -> Iterator[str]:
        """Yield what is there beside the parts.

        Raises
        ------
        TransientError
            When storage fails again and again.
        InputError
            When a folder cannot be listed for another reason.
        """
        try:
            keys = retried(lambda: [key for key, _ in files_below(self._root)], str(self._root))
        except OSError as error:
            raise read_error(str(error.filename or self._root), error) from error
        for key in keys:
            if key not in parts:
                yield f"{key} (file {self._root / key}) is not one of its parts"

    def close(self) -> None:
        """Nothing stays open."""


class StoredSpans:
    """The parts of a container that is one file.

    Spans of the file are compared first; only where they are sound, its structure is used to find
    the elements.

    Parameters
    ----------
    path : Path
        The file.
    container : {"npy", "npz", "hdf5"}
        Its format.
    """

    def __init__(self, path: Path, container: str) -> None:
        self._path = path
        self._container = container
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size
        self._sources: dict[str, ArraySource] = {}
        self._chunks: Mapping[str, tuple[int, int]] = {}

    def check(self, part: StoredPart) -> None:
        """Read a part and compare it.

        Raises
        ------
        PartError
            When it is missing, has another length, or has changed.
        """
        span = parse_span_key(part.key)
        if span is not None:
            self._check_bytes(f"{part.key} of {self._path}", part, span[0], span[1] - span[0])
            return
        chunk = self._chunks.get(part.key)
        if chunk is not None:
            where = f"chunk {part.key} (bytes {chunk[0]}-{sum(chunk)} of {self._path})"
            self._check_bytes(where, part, *chunk)
            return
        self._check_block(part)

    def open_structure(self, inner: Iterable[str]) -> None:
        """Find the elements, once the rest of the file is known to be sound.

        Raises
        ------
        InputError
            When the file cannot be opened all the same.
        """
        if self._container == "hdf5":
            from normcli.arrays.hdf5_listing import chunk_spans

            self._chunks = reopened(lambda: chunk_spans(self._path))
        for name in inner:
            source = open_source(f"{self._path}/{name}" if name else str(self._path))
            self._sources[name] = source

    def surplus(self, parts: Mapping[str, StoredPart]) -> Iterator[str]:
        """Yield what is there beside the parts, or is lacking."""
        expected = sum(part.nbytes for part in parts.values())
        if self._size != expected:
            what = "more" if self._size > expected else "fewer"
            yield (
                f"{self._path} has {self._size} bytes, "
                f"{abs(self._size - expected)} {what} than its parts"
            )

    def close(self) -> None:
        """Close what is open."""
        os.close(self._file)
        for source in self._sources.values():
            source.close()

    def _check_bytes(self, where: str, part: StoredPart, offset: int, nbytes: int) -> None:
        checksum = PartChecksum()
        while checksum.nbytes < nbytes:
            wanted, place = min(_PIECE, nbytes - checksum.nbytes), offset + checksum.nbytes
            try:
                piece = retried(partial(os.pread, self._file, wanted, place), where)
            except OSError as error:
                raise PartError(f"{where} cannot be read: {error.strerror or error}") from error
            if not piece:
                break
            checksum.add(piece)
        _compare(where, part, checksum.nbytes, checksum.value)

    def _check_block(self, part: StoredPart) -> None:
        parsed = parse_block_key(part.key)
        source = self._sources.get(parsed[0]) if parsed is not None else None
        if parsed is None or source is None or len(parsed[1].start) != source.info.ndim:
            raise PartError(f"{part.key} is missing from {self._path}")
        if self._container == "hdf5" and source.info.chunks is not None:
            raise PartError(f"chunk {part.key} is missing from {self._path}")
        block = parsed[1]
        where = f"block {part.key} of {self._path}"
        if any(b > n for b, n in zip(block.stop, source.info.shape, strict=True)):
            raise PartError(f"{where} lies outside of the array")
        try:
            values = source.read(block)
        except InputError as error:
            raise PartError(f"{where} cannot be read: {error.message}") from error
        ordered = values.T if source.info.fortran_order else values
        data = np.ascontiguousarray(ordered, source.info.dtype)
        _compare(where, part, data.nbytes, part_checksum(byte_view(data)))


def open_parts(path: Path, container: str) -> StoredFiles | StoredSpans:
    """Return the parts of an output.

    Raises
    ------
    InputError
        When it cannot be opened.
    """
    if container == "zarr":
        return StoredFiles(path)
    try:
        return retried(lambda: StoredSpans(path, container), str(path))
    except OSError as error:
        raise read_error(str(path), error) from error


def damaged_members(path: Path) -> Iterator[str]:
    """Yield the members of an NPZ file that fail its own checksums."""
    try:
        archive = retried(lambda: zipfile.ZipFile(path), str(path))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        yield f"{path}: {error}"
        return
    with archive:
        for member in archive.infolist():
            try:
                retried(partial(_read_through, archive, member), f"{member.filename} of {path}")
            except (OSError, RuntimeError, ValueError, EOFError, *_DAMAGED) as error:
                yield f"{member.filename} of {path}: {error}"


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Read a member to its end, where its checksum is compared."""
    with archive.open(member) as file:
        while file.read(_PIECE):
            pass


def _compare(where: str, part: StoredPart, nbytes: int, checksum: int) -> None:
    if nbytes != part.nbytes:
        raise PartError(f"{where} has {nbytes} bytes instead of {part.nbytes}")
    if checksum != part.crc32c:
        raise PartError(f"{where} has changed: CRC-32C {checksum:08x} instead of {part.crc32c:08x}")


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
