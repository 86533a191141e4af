"""What runs inside of the workers of a cluster: checks before a run, and tasks that can be stopped.

Nothing here knows dask: these are functions of picklable values, which `engine.cluster` sends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normcli.engine.resources import default_memory, resident_memory
from normcli.engine.stopping import Abandoned, obey
from normcli.errors import InputError, NormcliError, OutputError, TransientError
from normcli.kernels.select import choose, kernels
from normcli.planning.memory import MIB

# What compiled kernels take beside their imports: measured 61 MiB from the cache and 96 MiB anew.
COMPILED_BYTES = 100 * MIB

# What a network file system may take to show what another node wrote.
VISIBLE_SECONDS = 5.0

# Documents that describe an array inside of a Zarr store: cheap to look at, unlike its chunks.
_DOCUMENTS = ("zarr.json", ".zarray", ".zmetadata", ".zgroup")

# What network storage and a busy node say, and what goes by.
_TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "ECONNRESET", "EAGAIN", "EBUSY", "ENETDOWN"),
        *("ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "EMFILE", "ENFILE"),
        *("ENOLCK", "EREMOTEIO"),
    )
    if hasattr(errno, name)
)


@dataclass(frozen=True)
class Seen:
    """A file as one process sees it.

    Attributes
    ----------
    path : str
        Its absolute name.
    size : int or None
        Bytes; None where it cannot be seen.
    mtime_ns : int
        Time of the last change, in nanoseconds since 1970.
    error : str
        Why it cannot be seen.
    """

    path: str
    size: int | None
    mtime_ns: int = 0
    error: str = ""


@dataclass(frozen=True)
class Survey:
    """What a worker has to work with.

    Attributes
    ----------
    host : str
        Name of its machine.
    files : tuple of Seen
        The input files as it sees them.
    resident : int
        Bytes that the process takes by itself, once its kernels are compiled.
    available : int
        Bytes that its machine has to give, by free memory, control group and SLURM.
    """

    host: str
    files: tuple[Seen, ...]
    resident: int
    available: int


def survey(places: Sequence[tuple[str, str]], nbytes: int) -> Survey:
    """Return what this process sees of the inputs, and the memory it has.

    Parameters
    ----------
    places : sequence of (str, str)
        Absolute name of each container, and the array in it.
    nbytes : int
        Size of the array, which decides the kernels: they are loaded, because they take memory.
    """
    kind = choose(nbytes)
    kernels(kind)
    coming = COMPILED_BYTES if kind == "numba" and kind not in _STATE.warm else 0
    files = tuple(seen for place in places for seen in look(*place))
    return Survey(socket.gethostname(), files, resident_memory() + coming, default_memory())


def look(container: str, inner: str) -> list[Seen]:
    """Return the file of an array, or the documents of a Zarr array, as seen from here."""
    path = Path(container)
    if not path.is_dir():
        return [_seen(path)]
    folder = path / inner
    documents = [folder / name for name in _DOCUMENTS if (folder / name).exists()]
    return [_seen(document) for document in documents] or [_seen(folder / _DOCUMENTS[0])]


def _seen(path: Path) -> Seen:
    try:
        status = os.stat(path)
    except OSError as error:
        return Seen(str(path), None, error=error.strerror or str(error))
    return Seen(str(path), status.st_size, status.st_mtime_ns)


def write_probe(folder: str) -> tuple[str, str]:
    """Write a small file into a folder and return its name, or an empty name and the reason."""
    path = Path(folder) / f".probe-{uuid.uuid4().hex}"
    if not appears(Path(folder)):
        return "", "there is no such folder"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, b"normcli looks whether it can write here\n")
        os.close(descriptor)
    except OSError as error:
        return "", error.strerror or str(error)
    return str(path), ""


def appears(path: Path) -> bool:
    """Whether a file that another process made is seen here, at once or soon."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not os.path.lexists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # makes NFS look again
    return True


def remove_probes(paths: Sequence[str]) -> None:
    """Remove what `write_probe` wrote, as far as it is there."""
    for path in paths:
        Path(path).unlink(missing_ok=True)


def load(data: bytes) -> Any:
    """Return the job that the client of this cluster sent."""
    return pickle.loads(data)


class _State:
    """What tasks in the threads of this process share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.active: Counter[str] = Counter()
        self.stops: dict[str, threading.Event] = {}
        self.gates: dict[int, threading.Semaphore] = {}
        self.warm: set[str] = set()

    def stop(self, token: str) -> threading.Event:
        """Return the event that ends a pass; called with the lock held."""
        return self.stops.setdefault(token, threading.Event())

    def gate(self, at_once: int) -> threading.Semaphore:
        with self.lock:
            return self.gates.setdefault(at_once, threading.Semaphore(at_once))


_STATE = _State()


def carry(task: Callable[[Any, Any], Any], job: Any, run: Any, token: str, at_once: int) -> Any:
    """Do one task for the client.

    Parameters
    ----------
    task : callable
        Takes the job and the run.
    job, run
        What to do.
    token : str
        Names the pass that the task belongs to, so that it can be stopped.
    at_once : int
        Tasks that share the memory of this process.

    Raises
    ------
    NormcliError
        What the task raised. Errors of the operating system become transient ones, and what
        cannot travel becomes an error of the input that says the same.
    """
    with _STATE.gate(at_once):
        with _STATE.lock:
            event = _STATE.stop(token)
            if event.is_set():
                raise Abandoned(token)
            _STATE.active[token] += 1
        obey(event)
        try:
            result = task(job, run)
            if result.parts:
                # The client writes down that they are durable, which only this machine can make
                # true: a file system may keep them in its memory until the file is synced here.
                job.sink.sync(result.parts)
            _STATE.warm.add(job.kernel)
            return result
        except Exception as error:
            failed = _to_send(error, job.source.name, run)
        finally:
            with _STATE.lock:
                _STATE.active[token] -= 1
    # Raised here, because dask sends what an exception came from with it, which need not travel.
    raise failed


def _to_send(error: Exception, name: str, run: Any) -> Exception:
    """Return what the client is told of an error."""
    here = f"on the worker {socket.gethostname()}"
    trace = error.__traceback__
    if isinstance(error, NormcliError):
        kind: type[NormcliError] = type(error)
        message, hint = error.message, error.hint
        if _passes(error):
            kind, message = TransientError, f"{message.rstrip('.')} ({here})."
            hint = "Check the storage there, then give the same command again."
        return kind(message, hint).with_traceback(trace)
    if isinstance(error, MemoryError):
        return OutputError(
            f"Memory ran out {here} while a block was worked on.",
            "Lower --memory or -j, or give the workers more memory.",
        )
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return TransientError(
            f"{name}: {what}{error.strerror or error} ({here}).",
            "Check the storage and the network there, then give the same command again.",
        )
    if isinstance(error, Abandoned) or _travels(error):
        error.__cause__ = error.__context__ = None
        return error
    return InputError(
        f"{name}: {type(error).__name__}: {error} ({here}, in the blocks {run.first} to "
        f"{run.first + run.count}).",
        "Read it on one machine, without --scheduler, with --debug.",
    )


def stop(token: str) -> int:
    """Let no task of a pass begin or read on, and return how many are at work still.

    Parameters
    ----------
    token : str
        Names the pass; the passes that another process began for the same output begin with the
        same word.
    """
    with _STATE.lock:
        for known in [*_STATE.stops, token]:
            if known.startswith(token):
                _STATE.stop(known).set()
        return sum(count for known, count in _STATE.active.items() if known.startswith(token))


def _passes(error: NormcliError) -> bool:
    """Whether an error goes back to the storage of one node, where another may fare better."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _TRANSIENT


def _travels(error: Exception) -> bool:
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return str(again) == str(error)
