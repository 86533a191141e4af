"""Reads that are tried again: network file systems fail now and then, and work a moment later."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from normcli.errors import TransientError

T = TypeVar("T")

# Waits before each further attempt, in seconds.
_WAITS = (0.05, 0.2, 0.8)
_AT_ONCE = 1 << 30
STORAGE = "Check the storage (dmesg tells of disks), then try again."
# Errors of storage that may be gone a moment later.
PASSING = {errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE, errno.EREMOTEIO}


def retried(attempt: Callable[[], T], where: str) -> T:
    """Return what `attempt` returns, tried again after errors that may pass.

    Parameters
    ----------
    attempt : callable
        Reads something; may be called several times.
    where : str
        What is read, for the message.

    Raises
    ------
    TransientError
        When storage fails again and again.
    OSError
        When it fails in another way.
    """
    for wait in (*_WAITS, None):
        try:
            return attempt()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if wait is None:
                raise TransientError(
                    f"{where} could not be read: {os.strerror(error.errno)}, after "
                    f"{len(_WAITS) + 1} attempts.",
                    STORAGE,
                ) from error
            time.sleep(wait)
    raise AssertionError


def passing(error: BaseException | None) -> bool:
    """Whether an error goes back to storage that may work a moment later.

    HDF5 tells the number of the system's error in its message only.
    """
    while error is not None:
        if isinstance(error, OSError):
            told = re.search(r"errno = (\d+)", str(error))
            number = error.errno or (int(told[1]) if told else None)
            if number in PASSING:
                return True
        error = error.__cause__ or error.__context__
    return False


def reopened(attempt: Callable[[], T]) -> T:
    """Return what `attempt` opens, tried again after errors that may pass.

    Raises
    ------
    TransientError
        When storage fails again and again.
    """
    for wait in _WAITS:
        try:
            return attempt()
        except TransientError:
            time.sleep(wait)
    return attempt()


def read_at(file: int, view: memoryview, offset: int, where: str) -> int:
    """Fill `view` from an open file; return how many bytes there were before the file ended.

    Parameters
    ----------
    file : int
        Descriptor.
    view : memoryview
        What is filled.
    offset : int
        Where in the file.
    where : str
        What is read, for messages.

    Raises
    ------
    TransientError
        When storage fails again and again.
    OSError
        When it fails in another way.
    """
    done = 0
    while done < len(view):
        part, place = view[done : done + _AT_ONCE], offset + done

        def attempt(part: memoryview = part, place: int = place) -> int:
            return os.preadv(file, [part], place)

        count = retried(attempt, f"{where} at byte {place}")
        if not count:
            break
        done += count
    return done
