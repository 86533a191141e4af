"""Reads that are tried again: network file systems fail now and then, and work a moment later."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from normcli.errors import InputError, NormcliError, TransientError

T = TypeVar("T")

# Waits before each further attempt, in seconds.
_WAITS = (0.05, 0.2, 0.8)
_AT_ONCE = 1 << 30
STORAGE = "Check the storage (dmesg tells of disks), then try again."
# As HDF5 tells an error of the system.
_TOLD = re.compile(r"\berrno = (\d+), error message = .*?(?:\boffset = (\d+)|\Z)", re.S)
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


def storage_error(name: str, error: BaseException | None) -> NormcliError | None:
    """Return the error for what storage did; None where it did nothing, and a file is malformed.

    Parameters
    ----------
    name : str
        What was read, for the message.
    error : BaseException
        What a library raised. HDF5 tells the number of the system's error, and where it was,
        in its message only, and h5py raises that as an error of any type.

    Returns
    -------
    NormcliError or None
        TransientError where storage may work a moment later, else InputError.
    """
    while error is not None:
        number, place = getattr(error, "errno", None), ""
        told = _TOLD.search(str(error))
        if told:
            number = int(told[1])
            place = f" at byte {told[2]}" if told[2] else ""
        if number == errno.EAGAIN and "unable to lock" in str(error):
            return TransientError(
                f"{name} is open in another program, which writes to it.",
                "Wait until it is done, or stop it.",
            )
        if number:
            message = f"{name} could not be read{place}: {os.strerror(number)} (errno {number})."
            return TransientError(message, STORAGE) if number in PASSING else InputError(message)
        error = error.__cause__ or error.__context__
    return None


def raise_storage_error(name: str, error: BaseException) -> None:
    """Raise what storage did, so that nobody takes it for what a file holds.

    Raises
    ------
    TransientError, InputError
        As `storage_error` has it.
    """
    found = storage_error(name, error)
    if found is not None:
        raise found from error


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
