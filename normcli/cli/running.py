"""Runs a command: signals become exceptions, exceptions become one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from normcli.cli.screen import Screen, plain_error
from normcli.errors import NormcliError, OutputError

CLOSED_PIPE = 141


class Stopped(BaseException):
    """A signal asked this process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_command(screen: Screen, debug: bool, body: Callable[[], int]) -> NoReturn:
    """Call `body` and leave the process with its exit code, or with that of its error.

    Parameters
    ----------
    screen : Screen
        Where errors are told.
    debug : bool
        Whether to show tracebacks.
    body : callable
        Does the work and returns an exit code.
    """
    try:
        with _signals():
            code = body()
            sys.stdout.flush()
    except BaseException as error:
        code = _told(screen, debug, error)
    if code == CLOSED_PIPE:
        # The interpreter would try to flush the closed pipe again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _told(screen: Screen, debug: bool, error: BaseException) -> int:
    if isinstance(error, SystemExit):
        raise error
    if debug:
        traceback.print_exception(error)
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        screen.error(f"stopped by {signal.Signals(number).name}; nothing was left behind.")
        return 128 + number
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE
    try:
        if isinstance(error, NormcliError):
            screen.error(error.message, error.hint)
            return error.exit_code
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            screen.error(f"{where}{error.strerror or error}.")
            return OutputError.exit_code
        if isinstance(error, MemoryError):
            screen.error("memory ran out.", "Give less with --memory, or fewer workers with -j.")
            return OutputError.exit_code
        screen.error(
            f"{type(error).__name__}: {error}", "This is a bug; please report it with --debug."
        )
    except OSError:
        plain_error(str(error))
    return 1


@contextmanager
def _signals() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    caught = [s for s in (signal.SIGTERM, getattr(signal, "SIGHUP", None)) if s is not None]
    before: dict[Any, Any] = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
