"""clean: what interrupted runs left, listed and removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from normcli.api.continuing import JOURNAL
from normcli.engine.journal import read_head
from normcli.errors import InputError, NormcliError
from normcli.publishing import WORK_MARK, Handover, Workplace, work_folder
from normcli.publishing.draft import DRAFT_MARK, WHOSE
from normcli.publishing.workplace import owner_text

_DRAFT = re.compile(rf"^\.(?P<final>.+){re.escape(DRAFT_MARK)}(?P<pid>\d+)-")


@dataclass(frozen=True)
class Leftover:
    """What one run left.

    Attributes
    ----------
    path : Path
        The hidden folder or file.
    nbytes : int
        Its size.
    blocks : int
        Blocks that the same command would not do again.
    state : {"interrupted", "complete", "running"}
        Complete is a run that only its names are missing from; running is left alone.
    owner : str
        Who made it.
    """

    path: Path
    nbytes: int
    blocks: int
    state: str
    owner: str


def clean(path: str | Path, dry_run: bool = False) -> list[Leftover]:
    """Remove what dead runs left; a run that was complete gets its names instead.

    Parameters
    ----------
    path : str or Path
        An output, or a folder of outputs.
    dry_run : bool
        Only list.

    Returns
    -------
    list of Leftover
        What was found, the running ones too.

    Raises
    ------
    InputError
        When there is no such folder.
    """
    return [_clean(place, dry_run) for place in _places(Path(path))]


def _places(path: Path) -> Iterator[Path]:
    place = work_folder(path)
    if place.is_dir():
        yield place
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Give an output, or its folder.")
    for entry in sorted(folder.iterdir()):
        if path.is_dir() and entry.name.endswith(WORK_MARK) and entry.is_dir():
            yield entry
        found = _DRAFT.match(entry.name)
        if found and (path.is_dir() or found["final"] == path.name[:WHOSE]):
            yield entry


def _clean(place: Path, dry_run: bool) -> Leftover:
    nbytes = _size(place)
    found = _DRAFT.match(place.name)
    if found:
        alive = _alive(int(found["pid"]))
        if not alive and not dry_run:
            place.unlink(missing_ok=True)
        state = "running" if alive else "interrupted"
        return Leftover(place, nbytes, 0, state, f"process {found['pid']}")
    head = read_head(place / JOURNAL)
    owner = owner_text(place)
    name = place.name.removeprefix(".").removesuffix(WORK_MARK)
    workplace = Workplace(place.with_name(name), place)
    try:
        workplace.acquire(record=False)
    except NormcliError:
        return Leftover(place, nbytes, head.blocks, "running", owner)
    try:
        if not dry_run:
            if head.outcome is not None:
                Handover.from_text(head.outcome["steps"]).carry_out()
            workplace.remove()
    finally:
        workplace.release()
    state = "complete" if head.handover else "interrupted"
    return Leftover(place, nbytes, head.blocks, state, owner)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
