"""What safety costs: apply with checksums, syncs and journal beside apply without. Figure R10."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import normcli
from tests.benchmarks.files import LAYOUT, Files
from tests.benchmarks.harness import Comparison, Scale, Work

GOAL = 0.95
# A journal that waits so long writes once, at the end of a pass.
_NEVER = 1e6


def comparisons(scale: Scale) -> Iterator[Comparison]:
    """Yield the comparisons of apply with itself, less what makes it safe."""
    files = Files(scale)
    stats = normcli.fit(str(files.npy()), **LAYOUT)
    for name, path in (("NPY", files.npy()), ("Zarr, no codec", files.plain())):
        ours = _apply(files, path, stats)
        once = "no checksum, no journal, one sync at the end"
        work = f"apply, {name}, safe beside less safe"
        peer = _less_safe(ours, sync=True)
        yield Comparison("R10", work, ours, once, peer, GOAL, files.nbytes, files.clear)
        peer = _less_safe(ours, sync=False)
        never = "no checksum, no journal, no sync"
        yield Comparison("R10", work, ours, never, peer, GOAL, files.nbytes, files.clear)
    path = files.gzip()
    ours = _apply(files, path, stats)
    peer = _less_safe(ours, sync=False)
    work = "apply, gzip HDF5, safe beside less safe"
    yield Comparison("R10", work, ours, never, peer, GOAL, files.nbytes, files.clear)


def _apply(files: Files, path: Path, stats: Any) -> Work:
    output = str(files.out(f"safe{path.suffix}"))

    def run() -> None:
        normcli.apply(str(path), output, stats=stats, **LAYOUT)

    return run


def _less_safe(work: Work, sync: bool) -> Work:
    def run() -> None:
        with ExitStack() as stack:
            for target, value in (
                ("normcli.arrays.checksums.google_crc32c.extend", lambda start, data: 0),
                ("normcli.arrays.hdf5_filters.fletcher32", lambda data: 0),
                ("normcli.engine.journal_file.JournalFile.append", lambda self, lines: None),
                ("normcli.engine.journal.SECONDS", _NEVER),
            ):
                stack.enter_context(patch(target, value))
            if not sync:
                stack.enter_context(patch.object(os, "fsync", lambda descriptor: None))
            work()

    return run
