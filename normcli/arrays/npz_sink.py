"""NPZ containers in the making: members written as NPY files, packed when all are whole."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.drafts import Contents, DraftedSink
from normcli.arrays.file_gaps import between
from normcli.arrays.npy_format import write_header
from normcli.arrays.npz import ATTRS_MEMBER, data_offset
from normcli.arrays.raw_writer import RawWriter, holds_all, is_laid_out, lay_out
from normcli.domain.grid import Block
from normcli.errors import UsageError

_PIECE = 1 << 20


class NpzSink(DraftedSink):
    """Several arrays in one NPZ file.

    Parameters
    ----------
    contents : Contents
        The container, and what it shall hold.
    """

    container = "npz"

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        _require_names(self.name, self._paths.values())
        self._attrs: dict[str, Any] = {}
        self._folder = self._draft.path.with_name(self._draft.path.name + ".members")
        self._headers = {key: write_header(info, self.name) for key, info in self.arrays.items()}
        self._files = {key: self._folder / f"{n}.npy" for n, key in enumerate(self.arrays)}
        self._writers = {
            key: RawWriter(
                self._files[key], self.name, info, len(self._headers[key]), self._paths[key]
            )
            for key, info in self.arrays.items()
        }

    def create(self) -> None:
        """Lay out a file for each member."""
        self._draft.make_room()
        self._sweep()
        try:
            self._folder.mkdir()
            for key, info in self.arrays.items():
                lay_out(self._files[key], self._headers[key], info.nbytes)
        except OSError as error:
            raise self._failed(error) from error

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Take up the members, where all have these headers and lengths."""
        return self._members_are_whole() and holds_all(self._writers.values(), parts)

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block` of one array."""
        return self._writers[array].write(block, values)

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Make the members durable."""
        for writer in self._writers.values():
            writer.sync()

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes, kept as JSON text in the member ``normcli.npy``."""
        self._attrs.update(attrs)

    def seal(self) -> tuple[StoredPart, ...]:
        """Pack the members, which stay until the file has its final name."""
        self.close()
        if not self._members_are_whole():
            raise self._torn("the header or the length of a member has changed")
        try:
            self._pack_all()
            parts = self._between_members()
        except (OSError, zipfile.BadZipFile) as error:
            raise self._failed(error) from error
        self._draft.sync()
        return parts

    def close(self) -> None:
        """Close the handles of this process."""
        for writer in self._writers.values():
            writer.close()

    def _sweep(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _members_are_whole(self) -> bool:
        return all(
            is_laid_out(self._files[key], self._headers[key], info.nbytes)
            for key, info in self.arrays.items()
        )

    def _pack_all(self) -> None:
        self._draft.path.unlink(missing_ok=True)
        with zipfile.ZipFile(self._draft.path, "x", zipfile.ZIP_STORED, True) as archive:
            for key in self.arrays:
                with open(self._files[key], "rb") as file:
                    _pack(archive, self._paths[key], file)
            if self._attrs:
                _pack(archive, ATTRS_MEMBER, io.BytesIO(_attrs_member(self._attrs)))

    def _between_members(self) -> tuple[StoredPart, ...]:
        """Return the parts of the archive that hold no elements of the arrays."""
        path = self._draft.path
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
        spans = []
        for key, info in self.arrays.items():
            begin = data_offset(path, members[f"{self._paths[key]}.npy"])
            spans.append((begin + len(self._headers[key]), info.nbytes))
        return between(path, spans)


def _require_names(name: str, members: Iterable[str]) -> None:
    """Refuse what ZIP cannot write down before anything is computed."""
    for member in members:
        try:
            member.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{name} would have a member {member!r}, whose name is no UTF-8.",
                "Name the array of the output, as in y.npz/x.",
            ) from None


def _pack(archive: zipfile.ZipFile, name: str, file: BinaryIO) -> None:
    # ZipInfo's own date, 1980, makes equal arrays equal files.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        shutil.copyfileobj(file, member, _PIECE)


def _attrs_member(attrs: Mapping[str, Any]) -> bytes:
    text = json.dumps(attrs, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(text, np.uint8), allow_pickle=False)
    return buffer.getvalue()
