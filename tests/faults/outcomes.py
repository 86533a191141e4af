"""What a run left, in a form that two runs can be compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from tests.faults.shim import tree

# What tells two equal runs apart: when and by which command line they were made.
MADE = ("created", "command", "normcli_version")


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """Return everything that bears the name `name`, or begins with it."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(f"{name}*")):
        if path.suffix == ".json":
            document = json.loads(path.read_text())
            found[path.name] = {key: v for key, v in document.items() if key not in MADE}
        elif path.suffix == ".h5":
            found[path.name] = _stored(path)
        elif path.is_dir():
            found[path.name] = tree(path)
        else:
            found[path.name] = path.read_bytes()
    return found


def partly(left: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether everything that is left is as it is in the whole."""
    return all(part in whole and left[part] == whole[part] for part in left)


def hidden(folder: Path) -> list[str]:
    """Return what a run left beside its outputs."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def _stored(path: Path) -> dict[str, Any]:
    """Return the stored bytes of every dataset: where in the file they lie means nothing."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.chunks is None:
            found[name] = item[()].tobytes()
            return
        for number in range(item.id.get_num_chunks()):
            place = item.id.get_chunk_info(number).chunk_offset
            found[f"{name}{place}"] = item.id.read_direct_chunk(place)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
