"""Several outputs that get their names together."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from normcli.publishing.draft import output_error, sync_files

ASIDE = ".replaced"


@dataclass(frozen=True)
class Handover:
    """Complete drafts and the names they are to bear, the main output first.

    File systems rename one thing at a time. So the companions of an earlier output step aside
    first; then the output is renamed, then its companions. Whatever ends the process in between, an
    output stands beside its own companions or beside none, and `carry_out` can simply be repeated.

    Attributes
    ----------
    steps : tuple of (Path, Path)
        Draft and final name of each.
    """

    steps: tuple[tuple[Path, Path], ...]

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
        named = not os.path.lexists(main[0])
        place = main[1]
        try:
            for draft, final in companions:
                place = final
                if os.path.lexists(draft):
                    _step_aside(draft, final, aside)
            for draft, final in self.steps:
                place = final
                if not os.path.lexists(draft):
                    continue
                if final.is_dir() and not final.is_symlink():
                    # A folder cannot be renamed over; the old one steps aside for one rename.
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

    def as_text(self) -> list[list[str]]:
        """Return the steps as JSON can hold them."""
        return [[str(draft), str(final)] for draft, final in self.steps]

    @classmethod
    def from_text(cls, steps: Iterable[Sequence[str]]) -> Handover:
        """Return what `as_text` took apart."""
        return cls(tuple((Path(draft), Path(final)) for draft, final in steps))


def _step_aside(draft: Path, final: Path, aside: list[tuple[Path, Path]]) -> None:
    if not os.path.lexists(final):
        return
    old = draft.with_name(draft.name + ASIDE)
    _remove(old)
    os.replace(final, old)
    aside.append((old, final))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
