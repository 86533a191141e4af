"""How a run that ends early reaches the tasks that are on their way."""

from __future__ import annotations

import threading
from contextvars import ContextVar

# Set for the threads of one execution; worker processes are told by their scheduler.
_STOP: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


class Abandoned(Exception):
    """The run ends early; what this task did so far is not used."""


def obey(stop: threading.Event) -> None:
    """Let the tasks of this thread be abandoned once `stop` is set."""
    _STOP.set(stop)


def check_stop() -> None:
    """Raise Abandoned when the run of this thread ends early; called between blocks."""
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise Abandoned
