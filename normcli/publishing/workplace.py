"""The work folder of a run, and the lock on it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from normcli.errors import TransientError
from normcli.publishing.draft import output_error

if TYPE_CHECKING:
    from filelock import BaseFileLock

WORK_MARK = ".normcli-work"
LOCK = "lock"
# Where the file system has no locks: a file that names its owner, and is there as long as it works.
MARKER = "lock.marker"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
OWNER = "owner.json"
# File systems allow 255 bytes a name.
_LONGEST = 200


def work_folder(final: Path | str) -> Path:
    """Return the folder in which the output `final` is made: hidden, and beside it.

    The path is absolute, because workers may have another current folder.
    """
    target = Path(final)
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return target.parent.absolute() / f".{name}{WORK_MARK}"


@dataclass
class Workplace:
    """The work folder of one output, owned by at most one living run.

    The lock is the kernel's (`flock`), which ends with the process however that dies; where a file
    system has none, filelock's marker file takes its place, which names its owner.

    Attributes
    ----------
    final : Path
        The output.
    folder : Path
        Where it is made.
    """

    final: Path
    folder: Path
    _lock: BaseFileLock | None = field(default=None, repr=False)

    @classmethod
    def of(cls, final: Path | str) -> Workplace:
        """Return the place where `final` is made; nothing is created yet."""
        return cls(Path(final), work_folder(final))

    def acquire(self, record: bool = True) -> Self:
        """Make the folder and take its lock.

        Parameters
        ----------
        record : bool
            Whether to write down who owns it.

        Raises
        ------
        TransientError
            When another run holds it.
        OutputError
            When the folder cannot be made.
        """
        from filelock import Timeout

        try:
            # The owner before may remove the folder between these two steps.
            for attempt in range(10):
                try:
                    _make_private(self.folder)
                    self._lock = _lock_in(self.folder)
                    break
                except (FileNotFoundError, FileExistsError):
                    if attempt == 9:
                        raise
            if record:
                # Whole at once, since others read it at any moment.
                unsigned = self.folder / f"{OWNER}.new"
                unsigned.write_text(json.dumps(_owner()), "utf-8")
                unsigned.replace(self.folder / OWNER)
        except Timeout as error:
            raise TransientError(
                f"{self.final} is being written by another run: {owner_text(self.folder)}.",
                "Wait until it ends, or choose another -o.",
            ) from error
        except OSError as error:
            raise output_error(self.final, error) from error
        return self

    def release(self) -> None:
        """Let the folder go; what is in it stays for the next run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def clear(self) -> None:
        """Remove all that an earlier run left."""
        for entry in _entries(self.folder):
            if entry.name not in (LOCK, MARKER, OWNER):
                _remove(entry)

    def remove(self) -> None:
        """Remove the folder and all that is in it, then let it go."""
        self.clear()
        _remove(self.folder / OWNER)
        # The lock goes last: while it is there nobody else begins.
        for name in (LOCK, MARKER):
            _remove(self.folder / name)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.release()


def owner_text(folder: Path) -> str:
    """Return who owns a work folder, for a message."""
    owner = read_owner(folder)
    if owner is None:
        return "its owner is not known"
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Return host, pid, since and command of the last owner, or None."""
    try:
        owner = json.loads((folder / OWNER).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"pid", "host", "since"} <= set(owner) else None


def _lock_in(folder: Path) -> BaseFileLock:
    """Take the lock of a work folder, by the kernel or, where it refuses to, by a marker."""
    from filelock import FileLock, SoftFileLock

    try:
        lock: BaseFileLock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(folder / MARKER, timeout=0, thread_local=False)
        lock.acquire()
    return lock


def _owner() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["normcli", *sys.argv[1:]]),
    }


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o777, exist_ok=True)
    if folder.is_symlink():
        raise OSError(f"{folder} is a symbolic link")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
