"""Handles that each process opens for itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from normcli.retrying import reopened

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A handle opened when it is first needed, once in each process.

    It pickles as closed, and a forked child opens its own.

    Parameters
    ----------
    opener : callable
        Opens the handle; must be picklable.
    closer : callable
        Closes it; must be picklable.
    """

    def __init__(self, opener: Callable[[], T], closer: Callable[[T], Any]) -> None:
        self._opener = opener
        self._closer = closer
        self._lock = threading.Lock()
        self._handle: T | None = None
        self._pid = 0

    def get(self) -> T:
        """Return the open handle of this process.

        Opening is tried again after errors that may pass: many a file is opened a second time by
        the thread or process that reads its blocks.
        """
        handle = self._handle
        if handle is not None and self._pid == os.getpid():
            return handle
        with self._lock:
            if self._handle is None or self._pid != os.getpid():
                self._handle = reopened(self._opener)
                self._pid = os.getpid()
            return self._handle

    def close(self) -> None:
        """Close the handle of this process, if there is one; `get` opens it again."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None and self._pid == os.getpid():
                self._closer(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return (PerProcess, (self._opener, self._closer))
