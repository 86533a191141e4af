"""Several outputs that get their names together."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from normcli.publishing.draft import output_error, sync_files
from normcli.publishing.exchanging import exchanged

ASIDE = ".replaced"


@dataclass(frozen=True)
class Handover:
    """Complete drafts and the names they are to bear, the main output first.

    File systems rename one thing at a time. So the companions of an earlier output step aside
    first; then the output is renamed, then its companions. Whatever ends the process in between, an
    output stands beside its own companions or beside none, and `carry_out` can simply be repeated.

    A folder cannot be renamed over. It changes places with the draft instead, where the system can,
    so that its name is never missing. The name of the draft then holds the earlier output, until
    that is moved aside; what `mark` remembers of the draft tells the two from each other.

    Attributes
    ----------
    steps : tuple of (Path, Path)
        Draft and final name of each.
    mark : tuple of int, optional
        Inode and time of the last write (in ns) of the main draft, where it is a folder. Without
        it, an earlier folder steps aside, and its name is missing between two renames.
    """

    steps: tuple[tuple[Path, Path], ...]
    mark: tuple[int, int] | None = None

    @classmethod
    def of(cls, steps: Iterable[tuple[Path, Path]]) -> Handover:
        """Return the handover of drafts that are complete."""
        pairs = tuple(steps)
        main = pairs[0][0]
        return cls(pairs, _mark(main) if main.is_dir() else None)

    def carry_out(self) -> None:
        """Rename everything that has not been renamed yet.

        Raises
        ------
        OutputError
            When the file system refuses; an earlier output is back then with its companions, unless
            the new one has its name already.
        """
        main, *companions = self.steps
        aside: list[tuple[Path, Path]] = []
        place = main[1]
        named = False
        try:
            if self._is_exchanged():
                _set_aside(main[0])
            named = not os.path.lexists(main[0])
            for draft, final in companions:
                place = final
                if os.path.lexists(draft):
                    _step_aside(draft, final, aside)
            for draft, final in self.steps:
                place = final
                if not os.path.lexists(draft):
                    continue
                if final.is_dir() and not final.is_symlink():
                    known = draft == main[0] and self.mark is not None
                    if known and exchanged(draft, final):
                        named = True
                        _set_aside(draft)
                        continue
                    # The old one steps aside for one rename.
                    _step_aside(draft, final, aside)
                os.replace(draft, final)
                named = True
            sync_files({final.parent for _, final in self.steps})
        except OSError as error:
            if not named:
                for old, final in reversed(aside):
                    with contextlib.suppress(OSError):
                        os.replace(old, final)
            raise output_error(place, error) from error
        for draft, _ in self.steps:
            _remove(draft.with_name(draft.name + ASIDE))

    def _is_exchanged(self) -> bool:
        """Whether the main draft has its name, and the name of the draft the earlier output.

        An inode may be another after a restart (of an overlay), the time after a rename (nowhere
        that we know); one of both is enough.
        """
        if self.mark is None:
            return False
        draft, final = self.steps[0]
        return _is_like(final, self.mark) and not _is_like(draft, self.mark)

    def as_text(self) -> list[list[str]]:
        """Return the steps as JSON can hold them."""
        texts = [[str(draft), str(final)] for draft, final in self.steps]
        texts[0] += map(str, self.mark or ())
        return texts

    @classmethod
    def from_text(cls, steps: Iterable[Sequence[str]]) -> Handover:
        """Return what `as_text` took apart."""
        texts = [list(step) for step in steps]
        mark = (int(texts[0][2]), int(texts[0][3])) if len(texts[0]) == 4 else None
        return cls(tuple((Path(text[0]), Path(text[1])) for text in texts), mark)


def _step_aside(draft: Path, final: Path, aside: list[tuple[Path, Path]]) -> None:
    if not os.path.lexists(final):
        return
    old = draft.with_name(draft.name + ASIDE)
    _remove(old)
    os.replace(final, old)
    aside.append((old, final))


def _set_aside(draft: Path) -> None:
    """Move the earlier output, which changed places with its draft, out of the draft's name."""
    if os.path.lexists(draft):
        old = draft.with_name(draft.name + ASIDE)
        _remove(old)
        os.replace(draft, old)


def _mark(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_ino, status.st_mtime_ns


def _is_like(path: Path, mark: tuple[int, int]) -> bool:
    try:
        found = _mark(path)
    except FileNotFoundError:
        return False
    return found[0] == mark[0] or found[1] == mark[1]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
