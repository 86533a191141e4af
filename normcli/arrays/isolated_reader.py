"""The child process that reads blocks for `normcli.arrays.isolated`, under limits."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import mmap
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from normcli import isolation, process_limits
from normcli.arrays.access import ArraySource
from normcli.arrays.opening import open_stored
from normcli.arrays.rules import InputRules
from normcli.domain.grid import Block
from normcli.errors import NormcliError

# For one block; more where it is large.
CPU_SECONDS = 20
# No decoder of any format is as slow as this.
_SLOWEST = 1 << 20
# Address space that the stack of a thread reserves, with what it holds itself.
_THREAD_BYTES = 16 << 20


def serve(memory: int, opener: list[Any]) -> None:
    """Read blocks until standard input ends; the whole life of the child.

    Parameters
    ----------
    memory : int
        Descriptor of the memory that elements are put into.
    opener : list
        Module, function and arguments that open the array.
    """
    import faulthandler

    faulthandler.disable()  # a crash is told by the parent, in one line
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb+", buffering=0) as null:
        os.dup2(null.fileno(), 1)  # libraries may print
    isolation.inside_trial()
    _limit("RLIMIT_CORE", 0)
    module, function, arguments = opener
    source: ArraySource | None = None
    taken = _address_space()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        try:
            _limit_block(taken, int(request["nbytes"]))
            if source is None:
                source = getattr(importlib.import_module(module), function)(*arguments)
                taken = _address_space()
                _limit_block(taken, int(request["nbytes"]))
            _answer(answers, _read(source, request, memory))
        except NormcliError as error:
            told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
            _answer(answers, told)
        except Exception as error:
            kind = "memory" if isolation.wants_memory(error) else "InputError"
            name = "It" if source is None else source.name
            message = f"{name} could not be read: {' '.join(str(error).split())[:300]}."
            _answer(answers, {"error": kind, "name": name, "message": message})
    os._exit(0)


def open_array(format: str, container: str, inner: str, rules: dict[str, Any]) -> ArraySource:
    """Return an array of an HDF5 file or a Zarr store."""
    return open_stored(format, Path(container), inner, InputRules(**rules))


def _read(source: ArraySource, request: dict[str, Any], memory: int) -> dict[str, Any]:
    block = Block(0, tuple(request["start"]), tuple(request["stop"]))
    values = source.read(block)
    order = "C" if values.flags.c_contiguous else "F"
    nbytes = int(request["nbytes"])
    if nbytes:
        with mmap.mmap(memory, nbytes) as shared:
            flat = np.frombuffer(shared, values.dtype, values.size)
            flat.reshape(values.shape, order=order)[...] = values  # type: ignore[call-overload]
            del flat
    return {"order": order}


def _answer(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _limit_block(taken: int, nbytes: int) -> None:
    """Allow the time and the memory that one sound block may take."""
    times = os.times()
    used = math.ceil(times.user + times.system)
    _limit("RLIMIT_CPU", used + CPU_SECONDS + nbytes // _SLOWEST)
    if not taken:
        return
    threads = (os.cpu_count() or 1) * _THREAD_BYTES
    with contextlib.suppress(OSError, ValueError):  # unknown or unchangeable on some systems
        _limit("RLIMIT_AS", taken + isolation.MEMORY_BYTES + threads + 4 * nbytes)


def _address_space() -> int:
    try:
        return process_limits.address_space()
    except OSError:
        return 0  # a system that cannot limit it either


def _limit(kind: str, value: int) -> None:
    import resource

    process_limits.limit(getattr(resource, kind), value)
