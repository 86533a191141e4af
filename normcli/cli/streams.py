"""Standard input and output: fit for data, and written to as data or JSON only."""

from __future__ import annotations

import io
import json
import math
import os
import select
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from normcli.errors import InputError, OutputError, UsageError
from normcli.redaction import redacted

# Set by the first signal; a pipe that brings nothing more does not keep the process then.
STOPPING = threading.Event()

_PATIENCE = 0.2


class PipeInput(io.RawIOBase):
    """Standard input whose readers stop waiting when a signal asked the process to stop."""

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of standard input."""
        return 0

    def readinto(self, buffer: Any) -> int:
        """Wait for data, and take what is there."""
        while not select.select([0], [], [], _PATIENCE)[0]:
            if STOPPING.is_set():
                raise InterruptedError("stopped while waiting for standard input")
        return os.readv(0, [buffer])


def emit(text: str) -> None:
    """Write a result to standard output.

    Parameters
    ----------
    text : str
        Whole lines, without the last line end.

    Raises
    ------
    OutputError
        When standard output is closed or full.
    BrokenPipeError
        When nobody reads any more.
    """
    stream = _stdout()
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            spelled = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
            stream.write(spelled + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"Standard output could not be written: {error.strerror}.",
            "Free some space, or send it elsewhere.",
        ) from error


def emit_json(document: Any) -> None:
    """Write a document as one line of JSON; NaN and infinities become strings, as in Zarr."""
    emit(json.dumps(_strict(document), allow_nan=False, default=str))


def require_input_pipe(inputs: Sequence[str]) -> None:
    """Make ready for ``-``; refuse it where standard input brings nothing.

    Raises
    ------
    InputError
        When it is closed.
    UsageError
        When it is a terminal, on which a run would wait for ever.
    """
    if "-" not in inputs:
        return
    if sys.stdin is None:
        raise InputError("Standard input is closed.", "Pipe NPY into it: cat x.npy | normcli …")
    if sys.stdin.isatty():
        raise UsageError(
            "Standard input is a terminal, not a pipe of NPY.",
            "Pipe an array into it: cat x.npy | normcli …",
        )
    if os.name == "posix":
        sys.stdin = io.TextIOWrapper(PipeInput())


def require_output_pipe(output: str | None) -> None:
    """Refuse ``-`` where standard output cannot take an array.

    Raises
    ------
    OutputError
        When it is closed.
    UsageError
        When it is a terminal.
    """
    if output != "-":
        return
    if _stdout().isatty():
        raise UsageError(
            "Standard output is a terminal, and NPY is binary.",
            "Pipe it on, or name a file: -o out.npy",
        )


def open_missing() -> None:
    """Point closed standard descriptors at nothing.

    Otherwise the next file that is opened would take their place, and what is written to standard
    error would end up in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _stdout() -> Any:
    if sys.stdout is None:
        raise OutputError(
            "Standard output is closed, but the result goes there.", "Send it to a file."
        )
    return sys.stdout


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
