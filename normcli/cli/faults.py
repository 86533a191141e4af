"""An error as it is told: what, why, what to type, and the exit code; as lines, or as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from normcli.cli.texts import printable
from normcli.errors import NormcliError, OutputError
from normcli.redaction import redacted

OPTION = "--json-errors"
_VARIABLE = "NORMCLI_JSON_ERRORS"

# What Python says, with nothing but its text to know it by.
_NO_THREAD = "can't start new thread"
# NumPy's indexing ends so where there is no memory even for what it is about to say.
_NO_ERROR = "without exception set"


@dataclass(frozen=True)
class Fault:
    """Why a command, or one of its inputs, failed.

    Attributes
    ----------
    kind : str
        Its class: those of `normcli.errors`, ``Stopped``, or what Python raised.
    message, hint : str, str or None
        What is, and what to type.
    code : int
        The exit code.
    file : str or None
        The file that the operating system named, the one of several inputs, or the one of the
        command line that the message begins with.
    kept : tuple of int, optional
        Blocks that are kept for the same command, and all of them.
    """

    kind: str
    message: str
    hint: str | None
    code: int
    file: str | None = None
    kept: tuple[int, int] | None = None

    def as_json(self) -> str:
        """Return it as one line of JSON, in ASCII."""
        document = {
            "error": self.message,
            "hint": self.hint,
            "exit_code": self.code,
            "kind": self.kind,
            "file": self.file,
        }
        if self.kept is not None:
            document |= {"kept_blocks": self.kept[0], "blocks": self.kept[1]}
        return _line(document)


def warning_json(message: str, hint: str | None) -> str:
    """Return a warning as one line of JSON, in ASCII."""
    return _line({"warning": message, "hint": hint})


def fault_of(error: BaseException) -> Fault:
    """Return what is told of an exception."""
    kind = type(error).__name__
    if isinstance(error, NormcliError):
        file = _file_of(error.message)
        return Fault(kind, error.message, error.hint, error.exit_code, file)
    if isinstance(error, OSError):
        return Fault(
            OutputError.__name__,
            os_error_text(error),
            "Check the storage, then try again.",
            OutputError.exit_code,
            None if error.filename is None else str(error.filename),
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, SystemError) and _NO_ERROR in str(error)
    ):
        return Fault(
            MemoryError.__name__,
            "memory ran out.",
            "Give less with --memory, or fewer workers with -j.",
            OutputError.exit_code,
        )
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return Fault(
            OutputError.__name__,
            "no more threads can be started, for want of memory or of processes.",
            "Raise the limits (ulimit -v, ulimit -u), or take fewer workers with -j.",
            OutputError.exit_code,
        )
    return Fault(
        kind,
        f"{kind}: {error}",
        "This is a bug; please report it, with what --debug prints.",
        1,
    )


def _file_of(message: str) -> str | None:
    """Return the word of the command line that a message begins with, where it is a path."""
    words = [w.partition("=")[2] if w.startswith("--") else w for w in sys.argv[1:]]
    paths = [p for w in words if "." in w or os.sep in w for p in (w, os.path.normpath(w))]
    found = [p for p in paths if message.startswith((f"{p}:", f"{p} "))]
    return max(found, key=len, default=None)


def refusal(error: click.ClickException) -> Fault:
    """Return what is told of a mistake in the command line."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "normcli"
    hint = f"'{path} -h' tells what it takes."
    return Fault("UsageError", error.format_message(), hint, error.exit_code)


def stopped(number: int, kept: bool) -> Fault:
    """Return what is told of a run that a signal ended."""
    name = signal.Signals(number).name
    if kept:
        return Fault("Stopped", f"stopped by {name}.", None, 128 + number)
    message = f"stopped by {name}; nothing was left behind."
    return Fault("Stopped", message, "The same command starts again.", 128 + number)


def os_error_text(error: OSError) -> str:
    """Return what the operating system said, and of which file."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


def fault_lines(fault: Fault) -> Iterator[str]:
    """Yield the lines that tell a person of it."""
    yield f"normcli: error: {printable(fault.message)}"
    if fault.hint:
        yield f"Hint: {printable(fault.hint)}"


def wants_json() -> bool:
    """Whether errors are told as JSON.

    Read from the command line itself: a mistake in it must be told so too, before it is parsed.
    """
    words = sys.argv[1:]
    if "--" in words:
        words = words[: words.index("--")]
    if OPTION in words:
        return True
    names = {_VARIABLE, *(f"NORMCLI_{word.upper()}_JSON_ERRORS" for word in words[:1])}
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "t", "yes", "y", "on")
        for name in names
    )


def _line(document: Mapping[str, Any]) -> str:
    shown = {k: redacted(v) if isinstance(v, str) else v for k, v in document.items()}
    return json.dumps(shown)
