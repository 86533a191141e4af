"""Files in the folder of a Zarr store that no Zarr store has: somebody put them there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

DOCUMENTS = frozenset(("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"))
# What an array has beside its documents: chunks, or folders of them.
_CHUNK = re.compile(r"c|c\.\d+(\.\d+)*|\d+(\.\d+)*")
# What nobody misses: left by writers that died, by network file systems, by desktops.
_LITTER = re.compile(r".*\.partial|\.nfs[0-9a-f]+|\.DS_Store", re.S)


def stranger(store: Path) -> str | None:
    """Return the path, inside of a store, of one file or folder that is no part of it, or None.

    Folders of chunks are not entered: they may be many, and people put nothing there.

    Raises
    ------
    OSError
        When a folder cannot be listed, or a document not be read.
    """
    waiting = [store]
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        array = _is_array(folder, {entry.name for entry in found})
        for entry in found:
            if entry.name in DOCUMENTS or _LITTER.fullmatch(entry.name):
                continue
            if array and _CHUNK.fullmatch(entry.name):
                continue
            if array or not entry.is_dir(follow_symlinks=False):
                return Path(entry.path).relative_to(store).as_posix()
            waiting.append(Path(entry.path))
    return None


def _is_array(folder: Path, names: set[str]) -> bool:
    if ".zarray" in names:
        return True
    if "zarr.json" not in names:
        return False
    try:
        document = json.loads((folder / "zarr.json").read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("node_type") == "array"
