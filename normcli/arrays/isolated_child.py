"""A child process that reads blocks, as the process that asks it sees it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from normcli import errors
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.domain.grid import Block
from normcli.errors import InputError, NormcliError, SafetyError, TransientError
from normcli.isolation import MEMORY_BYTES, clean_environment

# Without an answer for so long, a child is ended; storage may be slow, but not that slow.
WALL_SECONDS = 300.0
_BOOT = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv[1])\n"
    "from normcli.arrays.isolated_reader import serve\n"
    "serve(int(sys.argv[2]), json.loads(sys.argv[3]))\n"
)
_HINT = "The file is damaged or hostile: copy or download it again."


class Opener(NamedTuple):
    """How a child opens the array; all of it goes to the child as JSON.

    Attributes
    ----------
    module, function : str
        What to call, as ``function(*arguments)``; it returns an `ArraySource`.
    arguments : tuple
        Values that JSON can hold.
    """

    module: str
    function: str
    arguments: tuple[Any, ...]


class EndedError(Exception):
    """How a child ended that was reading."""

    def __init__(self, number: int = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.number, self.seconds = number, seconds

    def told(self, place: str) -> NormcliError:
        """Return the error for what was read at `place`."""
        if self.number == signal.SIGKILL:
            return TransientError(
                f"The process that read {place} was killed by the system.",
                "Is memory short? Lower -j or --memory, and run the same command again.",
            )
        if not self.number:
            return InputError(
                f"{place} keeps its library busy for more than {self.seconds:g} s without end.",
                _HINT,
            )
        try:
            name = signal.Signals(self.number).name
        except ValueError:
            name = str(self.number)
        return InputError(f"{place} crashes the library that reads it ({name}).", _HINT)


class Child:
    """One child process, and the memory through which it gives elements."""

    def __init__(self, opener: Opener) -> None:
        self._memory = _shared_memory()
        places = [os.path.abspath(place) for place in sys.path if place]
        arguments = [json.dumps(places), str(self._memory), json.dumps(opener)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._memory,),
                # Each thread of a decoder would reserve 64 MiB of the address space it may have.
                env={**clean_environment(), "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,  # Ctrl-C is for this process
            )
        except OSError as error:
            os.close(self._memory)
            raise TransientError(
                f"No process could be started to read with: {error.strerror}."
            ) from error

    def read(self, block: Block, dtype: np.dtype, buffer: BlockBuffer | None) -> np.ndarray:
        """Return the elements of `block`.

        Raises
        ------
        EndedError
            When the process ends over it, or does not answer.
        NormcliError
            As the source in the process raised it.
        """
        native = dtype.newbyteorder("=")
        nbytes = block.size * native.itemsize
        if os.fstat(self._memory).st_size < nbytes:
            os.ftruncate(self._memory, nbytes)
        answer = self._ask({"start": block.start, "stop": block.stop, "nbytes": nbytes})
        if "error" in answer:
            raise _error(answer)
        order: Any = "F" if answer.get("order") == "F" else "C"
        values = block_array(block.shape, native, buffer, order)
        if nbytes:
            with mmap.mmap(self._memory, nbytes, prot=mmap.PROT_READ) as shared:
                flat = np.frombuffer(shared, native, block.size)
                values[...] = flat.reshape(block.shape, order=order)
                del flat  # else the memory could not be given back
        return values

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was still to be told to it
                stream.close()
        os.close(self._memory)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], WALL_SECONDS)[0]:
                raise EndedError(seconds=WALL_SECONDS)
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            raise self._ended()
        return dict(json.loads(answer))

    def _ended(self) -> EndedError:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return EndedError(number=signal.SIGPIPE)
        if -code == signal.SIGXCPU:
            from normcli.arrays.isolated_reader import CPU_SECONDS

            return EndedError(seconds=CPU_SECONDS)
        return EndedError(number=-code if code < 0 else code or signal.SIGPIPE)


def _shared_memory() -> int:
    """Return memory with a descriptor, that a child can fill but not take away."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    descriptor = os.memfd_create("normcli-block", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # Made smaller by a child that was taken over, it would kill this process by SIGBUS.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


def _error(answer: Mapping[str, Any]) -> NormcliError:
    """Return what went wrong in a child, as an error of the same kind."""
    if answer["error"] == "memory":
        return SafetyError(
            f"{answer['name']} asks for more than {MEMORY_BYTES >> 30} GiB of memory beside its "
            "elements.",
            _HINT,
        )
    kind = getattr(errors, str(answer["error"]), InputError)
    if not (isinstance(kind, type) and issubclass(kind, NormcliError)):
        kind = InputError
    return kind(str(answer["message"]), answer.get("hint"))
