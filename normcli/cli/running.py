"""Runs a command: signals become exceptions, exceptions become one line and an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from normcli.cli.faults import Fault, fault_lines, fault_of, stopped, wants_json
from normcli.cli.screen import Screen
from normcli.cli.streams import STOPPING
from normcli.errors import OutputError
from normcli.redaction import redacted

CLOSED_PIPE = 141

# A cluster kills 30 s after it asked; a person at a terminal waits less.
CLEAN_SECONDS = 4.0


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
        with _signals(screen):
            code = body()
            if sys.stdout is not None:
                sys.stdout.flush()
    except BaseException as error:
        code = _told(screen, debug, error)
    if code in (CLOSED_PIPE, OutputError.exit_code):
        # The interpreter would try to flush the lost output again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _told(screen: Screen, debug: bool, error: BaseException) -> int:
    if isinstance(error, SystemExit):
        raise error
    if debug:
        with suppress(OSError):
            # Not printed by traceback itself: messages hold addresses with their passwords.
            sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        fault = stopped(number, screen.keeps)
    else:
        fault = fault_of(error)
    screen.error(fault)
    return fault.code


def _leave_time_for_a_clean_end() -> None:
    """Have SIGXCPU come before the kill where ``ulimit -t`` set both limits of CPU time to one.

    The kernel looks at the hard limit first, so that such a process ended without a word.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == hard != resource.RLIM_INFINITY and hard > CLEAN_SECONDS:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (hard - int(CLEAN_SECONDS), hard))


def _leave_at_once(number: int) -> NoReturn:
    """End the process while blocks are in flight, with a line that tells so."""
    try:
        name = signal.Signals(number).name
        fault = Fault(
            Stopped.__name__,
            f"stopped by {name}, without waiting for what was in flight.",
            "The same command continues from what was written down, or starts again.",
            128 + number,
        )
        text = fault.as_json() if wants_json() else "\n".join(fault_lines(fault))
        # A terminal that was paused, or a pipe that is full, must not keep the process.
        if select.select((), (2,), (), 0)[1]:
            os.write(2, f"{text}\n".encode())
    finally:
        # Whatever failed, also for want of memory.
        os._exit(128 + number)


class _Watchdog:
    """Ends the process when a clean end takes too long.

    A thread does where the main one waits for storage, which no handler of signals interrupts. An
    alarm does where no thread begins: for want of memory it cannot be started, or dies before its
    first instruction, and `start` waits for it for ever.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def wake(self, number: int) -> None:
        """Give the process the time of a clean end, from now on."""
        if hasattr(signal, "setitimer"):  # not on Windows
            self._before = signal.signal(signal.SIGALRM, lambda *_: _leave_at_once(number))
            signal.setitimer(signal.ITIMER_REAL, CLEAN_SECONDS)
        self._timer = threading.Timer(CLEAN_SECONDS, _leave_at_once, (number,))
        self._timer.daemon = True
        with suppress(RuntimeError, MemoryError):
            self._timer.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def _signals(screen: Screen) -> Iterator[None]:
    """Turn signals into `Stopped`, except where they are ignored, as SIGHUP under nohup.

    The first one lets running blocks end and writes down what is done; a second one ends at once,
    and so does a clean end that takes too long: what is written down is enough to continue.
    SIGUSR1 asks where the run is.
    """
    watchdog = _Watchdog()
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if asked:
            _leave_at_once(number)
        asked.append(number)
        STOPPING.set()
        watchdog.wake(number)
        raise Stopped(number)

    def tell(number: int, frame: FrameType | None) -> None:
        # Not by rich, which this may have interrupted.
        with suppress(OSError):
            os.write(2, f"{screen.state_line()}\n".encode(errors="replace"))

    _leave_time_for_a_clean_end()
    STOPPING.clear()
    before: dict[Any, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, tell if name == "SIGUSR1" else stop)
    try:
        yield
    finally:
        watchdog.stop()
        # Once a run is stopping, another signal ends it at once, down to its last instruction.
        if not asked:
            for number, handler in before.items():
                signal.signal(number, handler)
