"""Tries a call on an untrusted file in a child process, before this process makes the same.

A malformed HDF5 file can kill the library, or keep it busy for ever, and Python cannot catch
either. The call is made in a forked child first, under limits of time and memory, and how that ends
is noticed. This takes some milliseconds. Where other threads run, whose locks a fork would copy, a
helper process is started once, which costs importing the libraries again, and forks instead.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

from normcli.errors import InputError, NormcliError, SafetyError
from normcli.process_limits import address_space, limit

CPU_SECONDS = 20
WALL_SECONDS = 300
# Beyond what the helper itself takes.
MEMORY_BYTES = 2 << 30

_BOOT = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv[1])\n"
    "from normcli.isolation import serve\n"
    "serve(sys.argv[2])\n"
)
# A library that the environment names must not be loaded into the helper either.
_DROPPED = ("HDF5_PLUGIN_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME")

_OPENMP = (b"libgomp", b"libomp", b"libiomp")

# Whether this process is a child or the helper, which must not try what they are trying.
_serving = False


def clean_environment() -> dict[str, str]:
    """Return the environment without what would load other libraries into a child."""
    return {name: value for name, value in os.environ.items() if name not in _DROPPED}


def inside_trial() -> None:
    """Note that this process itself is a child, and tries nothing in children of its own."""
    global _serving
    _serving = True


class _Helper:
    """The helper process of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, module: str, text: str) -> dict[str, Any] | None:
        """Return how a trial ended; None where no helper can be had."""
        with self._lock:
            for _ in range(2):  # once more, where the helper itself was killed
                process = self._running(module)
                if process is None:
                    return None
                assert process.stdin is not None
                assert process.stdout is not None
                with contextlib.suppress(OSError, ValueError):
                    process.stdin.write(text.encode() + b"\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()
                    if answer:
                        return json.loads(answer)
                self._stop()
            return None

    def _running(self, module: str) -> subprocess.Popen[bytes] | None:
        if self._process is not None and self._owner == os.getpid():
            return self._process
        if _serving or not hasattr(os, "fork") or not sys.executable:
            return None
        places = [os.path.abspath(place) for place in sys.path if place]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, json.dumps(places), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C is for this process
            )
        except OSError:
            return None
        self._owner = os.getpid()
        atexit.register(self._stop)
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_HELPER = _Helper()


# Trials that went well, and files that ended one, while they have not changed since.
_SURVIVED: set[str] = set()
_REFUSED: dict[tuple[Any, ...], NormcliError] = {}


def require_survival(path: str, module: str, function: str, **arguments: Any) -> None:
    """Try a call in a child under limits; what it raises there is left to the real call.

    Parameters
    ----------
    path : str
        The file that is read: its state decides whether an earlier trial still counts.
    module, function : str
        What to call, as ``function(path, **arguments)``.
    **arguments
        Values that JSON can hold.

    Raises
    ------
    InputError
        When the child was killed by the library, or did not end.
    SafetyError
        When it asked for more memory than any sound file needs.
    """
    if _serving:
        return
    try:
        status = os.stat(path)
    except OSError:
        return  # the call itself says what is wrong
    state = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    place = os.path.abspath(path)
    earlier = _REFUSED.get((place, *state))
    if earlier is not None:
        # Another trial of it would take its 20 s again.
        raise earlier.with_traceback(None)
    request = {
        "module": module,
        "function": function,
        "path": place,
        "arguments": arguments,
        "state": state,
    }
    text = json.dumps(request)
    if text in _SURVIVED:
        return
    ended = _tried(request) if _may_fork() else _HELPER.ask(module, text)
    if not ended:
        _SURVIVED.add(text)
        return
    refused = _error(path, ended)
    if "killed" not in ended:  # which the system may have done, for want of memory
        _REFUSED[(place, *state)] = refused
    raise refused


def _error(path: str, ended: dict[str, Any]) -> NormcliError:
    """Return the error for a file, by how a trial of it ended."""
    hint = "The file is damaged or hostile: copy or download it again."
    if "memory" in ended:
        return SafetyError(
            f"{path} asks for more than {MEMORY_BYTES >> 30} GiB of memory merely to be opened.",
            hint,
        )
    if "seconds" in ended:
        return InputError(
            f"{path} keeps its library busy for more than {ended['seconds']} s without end.", hint
        )
    number = int(ended["signal"])
    with contextlib.suppress(ValueError):
        number = signal.Signals(number).name  # type: ignore[assignment]
    return InputError(f"{path} crashes the library that reads it ({number}).", hint)


def _may_fork() -> bool:
    return (
        hasattr(os, "fork")
        and threading.current_thread() is threading.main_thread()
        and threading.active_count() == 1
        and not _holds_openmp()
    )


def _holds_openmp() -> bool:
    """Whether OpenMP is in this process: a forked child waits for its threads for ever.

    bitshuffle and torch bring it. BLAS keeps threads too, but a child makes new ones.
    """
    try:
        with open("/proc/self/maps", "rb") as file:
            libraries = file.read()
    except OSError:
        return False  # a system that does not tell
    return any(name in libraries for name in _OPENMP)


def serve(module: str) -> None:
    """Answer trials until standard input ends; the whole life of the helper."""
    inside_trial()
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
    while line := sys.stdin.buffer.readline():
        answer = _tried(json.loads(line))
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)


def _tried(request: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(ImportError):
        importlib.import_module(request["module"])
    # Closed by the end of the child, however it ends.
    ended, held = os.pipe()
    with warnings.catch_warnings():
        # Threads that libraries keep for later, such as those of BLAS, are not in the way.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(ended)
        _try(request)
    os.close(held)
    in_time = False
    try:
        in_time = bool(select.select([ended], [], [], WALL_SECONDS)[0])
    finally:
        os.close(ended)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not in_time:
        return {"seconds": WALL_SECONDS}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            told: dict[str, Any] = {"seconds": CPU_SECONDS}
            return {**told, "killed": True} if number == signal.SIGKILL else told
        return {"signal": number}
    return {"memory": True} if os.WEXITSTATUS(status) == _NO_MEMORY else {}


_NO_MEMORY = 77


def _try(request: dict[str, Any]) -> None:
    """Make the call under limits and leave; never returns."""
    inside_trial()
    code = 0
    try:
        import faulthandler
        import resource

        faulthandler.disable()  # a crash is told by this process, in one line
        with open("/dev/null", "rb+", buffering=0) as null:
            for stream in range(3):
                os.dup2(null.fileno(), stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        with contextlib.suppress(OSError, ValueError):  # unknown or unchangeable on some systems
            limit(resource.RLIMIT_AS, address_space() + MEMORY_BYTES)
        function = getattr(importlib.import_module(request["module"]), request["function"])
        function(request["path"], **request["arguments"])
    except BaseException as error:
        if wants_memory(error):
            code = _NO_MEMORY
    os._exit(code)


_NAMES = re.compile(r"'[^']*'")


def wants_memory(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that memory could not be had.

    HDF5 tells that in words only, among the names of files and objects, which it quotes.
    """
    while error is not None:
        told = "" if isinstance(error, NormcliError) else " ".join(map(str, error.args))
        if isinstance(error, MemoryError) or "allocat" in _NAMES.sub("", told):
            return True
        error = error.__cause__
    return False
