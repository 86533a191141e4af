"""Drafts: outputs in the making, and how they get their names."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from normcli.errors import NormcliError, OutputError, UsageError
from normcli.process_limits import address_space_is_limited
from normcli.publishing.exchanging import exchanged
from normcli.publishing.strangers import DOCUMENTS, stranger

SYNCS_AT_ONCE = 16
DRAFT_MARK = ".normcli-draft-"
DRAFT = "draft"
# Characters, of up to four bytes each; file systems allow 255 bytes a name.
WHOSE = 40


@dataclass(frozen=True)
class Draft:
    """An output in the making: a file or a folder under a temporary name.

    Attributes
    ----------
    final : Path
        The name it will bear.
    path : Path
        The temporary sibling to write to.
    overwrite : bool
        Whether an earlier output may be replaced.
    """

    final: Path
    path: Path
    overwrite: bool = False

    @classmethod
    def of_run(cls, final: Path | str, overwrite: bool = False) -> Draft:
        """Return the draft of a run that owns the work folder of `final`.

        Its name is the same in every run, so that an interrupted run can be continued.

        Parameters
        ----------
        final : Path or str
            The name it will bear.
        overwrite : bool
            Whether an earlier output may be replaced.

        Raises
        ------
        UsageError
            When the output exists and may not be replaced.
        OutputError
            When its folder is missing or cannot be written to.
        """
        from normcli.publishing.workplace import work_folder

        target = Path(final)
        refuse_unwritable(target, overwrite)
        return cls(target, work_folder(target) / f"{DRAFT}{target.suffix}", overwrite)

    @classmethod
    def beside(
        cls, final: Path | str, overwrite: bool = False, folder: Path | None = None
    ) -> Draft:
        """Return a draft of its own for `final`, for what is small and written at once.

        Parameters
        ----------
        final : Path or str
            The name it will bear.
        overwrite : bool
            Whether an earlier output may be replaced.
        folder : Path, optional
            Where to write it, on the same file system; beside `final` without it.

        Raises
        ------
        UsageError
            When the output exists and may not be replaced.
        OutputError
            When its folder is missing or cannot be written to.
        """
        target = Path(final)
        refuse_unwritable(target, overwrite)
        # Only beside others the name tells whose draft it is, as far as names may be that long.
        whose = "" if folder is not None else f".{target.name[:WHOSE]}"
        name = f"{whose}{DRAFT_MARK}{os.getpid()}-{uuid.uuid4().hex[:12]}{target.suffix}"
        return cls(target, (folder or target.parent.absolute()) / name, overwrite)

    def make_room(self) -> None:
        """Make the folder of the draft, and remove what an earlier run left at its place.

        Raises
        ------
        OutputError
            When the file system refuses.
        """
        try:
            self.path.parent.mkdir(exist_ok=True)
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self.final, error) from error

    def sync(self) -> None:
        """Make the draft durable.

        Raises
        ------
        OutputError
            When the file system refuses.
        """
        try:
            _sync_tree(self.path)
        except OSError as error:
            raise output_error(self.final, error) from error

    def publish(self) -> None:
        """Sync the draft and give it its final name; an earlier output stays until then.

        Raises
        ------
        OutputError
            When the file system refuses.
        """
        self.sync()
        try:
            refuse_existing(self.final, self.overwrite)
            replaced = None
            # A folder cannot be renamed over.
            if not self.final.is_dir() or self.final.is_symlink():
                os.replace(self.path, self.final)
            elif exchanged(self.path, self.final):
                replaced = self.path
            else:
                # The old one steps aside for one rename.
                replaced = self.path.with_name(self.path.name + ".replaced")
                os.rename(self.final, replaced)
                try:
                    os.replace(self.path, self.final)
                except OSError:
                    os.rename(replaced, self.final)
                    raise
            _sync(self.final.parent)
            if replaced is not None:
                shutil.rmtree(replaced)
        except OSError as error:
            raise output_error(self.final, error) from error

    def discard(self) -> None:
        """Remove the draft, as far as it exists."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def refuse_unwritable(target: Path, overwrite: bool) -> None:
    """Raise when `target` exists and may not be replaced, or could not be made where it is.

    Raises
    ------
    UsageError
        When it exists.
    OutputError
        When its folder is missing or cannot be written to.
    """
    refuse_existing(target, overwrite)
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} of the output does not exist.", "Create it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {folder} cannot be written to.", "Choose another -o.")


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise UsageError when `target` exists and may not be replaced.

    Of folders, empty ones and Zarr stores may be; any other holds what nobody meant to remove.
    """
    if not overwrite and (target.exists() or target.is_symlink()):
        raise UsageError(f"{target} exists.", "Add --overwrite to replace it, or choose another.")
    if not target.is_dir() or target.is_symlink():
        return
    try:
        names = set(os.listdir(target))
    except OSError as error:
        raise output_error(target, error) from error
    if names and (target.suffix.lower() != ".zarr" or names.isdisjoint(DOCUMENTS)):
        raise UsageError(
            f"{target} is a folder and no Zarr store, so it is not replaced.",
            "Remove it first, or choose another -o.",
        )
    try:
        other = stranger(target)
    except OSError as error:
        raise output_error(target, error) from error
    if other is not None:
        raise UsageError(
            f"{target} holds {other}, which is no part of a Zarr store and would be lost.",
            "Move it elsewhere, or choose another -o.",
        )


def is_empty(target: Path) -> bool:
    """Whether a file or folder that exists holds nothing."""
    return not os.listdir(target) if target.is_dir() else target.stat().st_size == 0


def output_error(target: Path | str, error: OSError) -> NormcliError:
    """Return the error to raise when writing `target` failed with `error`."""
    reason = error.strerror or str(error)
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space, or write to another disk; nothing was left under that name."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Choose a folder that you may write to."
    return OutputError(f"{target} could not be written: {reason}.", hint)


def sync_files(paths: Iterable[Path]) -> None:
    """Make files and folders durable.

    A disk takes several syncs at once: 128 chunks of 4 MiB took 0.33 s one by one.
    """
    if address_space_is_limited():
        for path in paths:
            _sync(path)
        return
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync_tree(path: Path) -> None:
    """Sync a file, or a folder with everything below it."""
    if not path.is_dir():
        _sync(path)
        return
    folders = [Path(folder) for folder, _, _ in os.walk(path)]
    sync_files(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    sync_files(folders)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
