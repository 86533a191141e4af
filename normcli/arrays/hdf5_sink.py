"""HDF5 files in the making, written from any process of this file system.

HDF5 lays the file out and ends it; nothing of HDF5 is open in between, because a file whose writer
died cannot be continued. Elements whose place is known before (contiguous ones, and chunks of one
stored size) are written there by `pwrite`; other chunks wait in spools until all are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from normcli.arrays.access import StoredPart
from normcli.arrays.drafts import Contents, DraftedSink
from normcli.arrays.file_gaps import between
from normcli.arrays.handles import PerProcess
from normcli.arrays.hdf5_assembly import assemble
from normcli.arrays.hdf5_direct import DirectWriters
from normcli.arrays.hdf5_disk import DiskFile
from normcli.arrays.hdf5_encode import ChunkEncoder
from normcli.arrays.hdf5_layout import VERSIONS, encoder_of, is_chunked, lay_out
from normcli.arrays.hdf5_listing import ROOT_ATTR
from normcli.arrays.hdf5_names import key_of
from normcli.arrays.hdf5_places import chunk_key, element_spans
from normcli.arrays.hdf5_spool import Spool, records, spools
from normcli.arrays.part_keys import block_key
from normcli.arrays.runs import byte_view
from normcli.domain.dtypes import is_bfloat16
from normcli.domain.grid import Block, Grid
from normcli.errors import UsageError
from normcli.publishing import sync_files

_DEFAULT_VERSION = "1.10"
_NOBODY = -1
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError)


class Hdf5Sink(DraftedSink):
    """One or several datasets of one HDF5 file.

    Chunks have a fletcher32, so that every reader notices damage.

    Parameters
    ----------
    contents : Contents
        The container, and what it shall hold.
    version : {"1.8", "1.10"}, optional
        The oldest HDF5 that shall read it; 1.10 where it is None.
    """

    container = "hdf5"

    def __init__(
        self,
        contents: Contents,
        version: str | None = None,
    ) -> None:
        super().__init__(contents)
        if version is not None and version not in VERSIONS:
            raise UsageError(
                f"There is no HDF5 version {version}.", f"Choose {', '.join(VERSIONS)}."
            )
        self._version = version or _DEFAULT_VERSION
        for info in self.arrays.values():
            if is_bfloat16(info.dtype):
                raise UsageError(
                    f"{self.name} would hold bfloat16, which HDF5 readers do not know.",
                    "Add --dtype float32.",
                )
        self._encoders: dict[str, ChunkEncoder] = {
            inner: encoder_of(inner, info)
            for inner, info in self.inside.items()
            if is_chunked(info)
        }
        self._spooled = any(e.stored_bytes is None for e in self._encoders.values())
        self._spool = Spool(self._draft.path)
        self._writers = self._direct_writers(os.getpid())
        self._attrs: dict[str, Any] = {}

    def create(self) -> None:
        """Lay out the datasets, or begin with empty spools."""
        self._draft.make_room()
        self._sweep()
        if self._spooled:
            return
        try:
            lay_out(self._draft.path, self._version, self.inside, self._encoders)
        except _FAILURES as error:
            raise self._failed(error) from error

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Take up the draft, where it has these datasets, or the spools, which hold the parts."""
        try:
            if self._spooled:
                wanted = set(parts)
                for record in records(self._draft.path):
                    wanted.discard(record.part)
                return not wanted and self._draft.path.parent.is_dir()
            if self._unsafe_mark().exists():
                return False
            writers = self._writers.get()
            return all(writers.holds(part) for part in parts)
        except _FAILURES:
            return False

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Write the elements of `block` of one array; chunks are filtered in this thread."""
        if not values.size:
            return ()
        inner = self._paths[array]
        encoder = self._encoders.get(inner)
        try:
            if self._spooled:
                return self._to_spool(inner, encoder, block, values)
            return self._writers.get().write(inner, block, values)
        except _FAILURES as error:
            raise self._failed(error) from error

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Make the draft or the spools durable."""
        try:
            path = self._draft.path
            sync_files([*spools(path), path.parent] if self._spooled else [path])
        except OSError as error:
            raise self._failed(error) from error

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes, kept as JSON text in the root attribute ``normcli``."""
        self._attrs.update(attrs)

    def seal(self) -> tuple[StoredPart, ...]:
        """End the file, open it again to see that it is whole, and return its metadata."""
        self.close()
        attributes = {ROOT_ATTR: json.dumps(self._attrs, ensure_ascii=False)} if self._attrs else {}
        path = self._draft.path
        try:
            if self._spooled:
                assemble(path, self._version, self.inside, self._encoders, attributes)
            elif attributes:
                self._annotate_in_place(attributes)
            parts = between(path, self._checked_spans())
        except _FAILURES as error:
            raise self._failed(error) from error
        self._draft.sync()
        return parts

    def close(self) -> None:
        """Close the handles of this process."""
        self._writers.close()
        self._spool.close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._writers = self._direct_writers(_NOBODY)

    def _direct_writers(self, owner: int) -> PerProcess[DirectWriters]:
        opener = partial(
            DirectWriters, self._draft.path, self.name, self.inside, self._encoders, owner
        )
        return PerProcess(opener, DirectWriters.close)

    def _sweep(self) -> None:
        for spool in spools(self._draft.path):
            spool.unlink(missing_ok=True)
        self._unsafe_mark().unlink(missing_ok=True)

    def _to_spool(
        self, inner: str, encoder: ChunkEncoder | None, block: Block, values: np.ndarray
    ) -> tuple[StoredPart, ...]:
        if encoder is None:
            data = byte_view(np.ascontiguousarray(values, self.inside[inner].dtype))
            return (self._spool.append(block_key(inner, block.start, block.stop), (data,), 0),)
        return tuple(
            self._spool.append(chunk_key(inner, start, encoder.chunks), pieces, mask)
            for start, pieces, mask in encoder.encode(block, values)
        )

    def _annotate_in_place(self, attributes: Mapping[str, str]) -> None:
        with h5py.File(self._draft.path, "r", locking=False) as file:
            if all(file.attrs.get(name) == value for name, value in attributes.items()):
                return  # sealed before, and interrupted then
        # While HDF5 has it open, the file is not one that could be continued.
        self._unsafe_mark().touch()
        with (
            DiskFile(self._draft.path, create=False) as disk,
            h5py.File(disk, "r+", libver=VERSIONS[self._version]) as file,
        ):
            file.attrs.update(attributes)
        self._unsafe_mark().unlink()

    def _unsafe_mark(self) -> Path:
        return self._draft.path.with_name(self._draft.path.name + ".open")

    def _checked_spans(self) -> list[tuple[int, int]]:
        """Return where the elements are, in a file that HDF5 can read again."""
        spans: list[tuple[int, int]] = []
        with h5py.File(self._draft.path, "r", locking=False) as file:
            for inner, info in self.inside.items():
                dataset = file[key_of(inner)]
                before = len(spans)
                spans += [(offset, nbytes) for _, offset, nbytes in element_spans(dataset)]
                wanted = len(Grid(info.shape, dataset.chunks)) if dataset.chunks else 1
                stored = len(spans) - before
                if dataset.shape != info.shape or stored != min(wanted, info.size):
                    raise self._torn(f"{inner} has {stored} of {wanted} parts")
        return spans
