"""Runs of normcli forked from a process that has imported everything.

A fresh process spends half a second on imports, which storms of thousands of runs cannot afford. A
run that is forked is the same command in a process of its own, down to the end of its libraries.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cli.terminal import environment

ROOT = Path(__file__).parents[2]

# What a run imports when it needs it, beside the modules of normcli.
_IMPORTS = """
dask.threaded dask.callbacks filelock filelock._soft filelock._identity psutil rich.live
rich.progress h5py h5py._hl.dims zarr zarr.codecs numcodecs google_crc32c encodings.ascii
"""


@dataclass(frozen=True)
class Forked:
    """What a forked run came to.

    Attributes
    ----------
    code : int
        Exit code; negative for a signal, as subprocess has it.
    err : str
        What it told.
    hits : tuple of str
        Operations that faults hit.
    seconds : float
        From its begin to its end.
    latency : float
        From the signal that was asked for to its end.
    out : str
        Standard output.
    peak : int
        Largest memory of the run and of what it started, in bytes.
    """

    code: int
    err: str
    hits: tuple[str, ...]
    seconds: float
    latency: float
    out: str
    peak: int = 0


class Forks:
    """A process that forks runs of normcli, one at a time.

    Parameters
    ----------
    library : Path
        The library of faults.
    under : tuple of str
        A command that starts the process, such as one that watches it.
    """

    def __init__(self, library: Path, under: tuple[str, ...] = ()) -> None:
        self._ours, theirs = os.pipe()
        orders, self._orders = os.pipe()
        self._process = subprocess.Popen(
            [*under, sys.executable, "-m", "tests.faults.forked", str(orders), str(theirs)],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(LD_PRELOAD=str(library), OPENBLAS_NUM_THREADS="1"),
            pass_fds=(orders, theirs),
        )
        os.close(orders)
        os.close(theirs)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._orders)
        os.close(self._ours)
        self._process.wait(30)

    def run(
        self,
        *arguments: object,
        cwd: Path,
        send: int = 0,
        after: float = 0.0,
        limits: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        **faults: object,
    ) -> Forked:
        """Run normcli.

        Parameters
        ----------
        *arguments : object
            Its command line.
        cwd : Path
            Where it runs.
        send, after : int, float
            A signal to send, so many seconds after its begin.
        limits : mapping
            Resource limits, such as ``{"NOFILE": 64}``.
        env : mapping
            Variables of the environment.
        timeout : float
            Seconds after which it is killed, and its code is -9.
        **faults : object
            ``at=3, ops="rename", errno=28`` sets FI_AT, FI_OPS and FI_ERRNO.
        """
        log = cwd.parent / f".faults-{cwd.name}-{self._process.pid}"
        order = {
            "arguments": [str(a) for a in arguments],
            "cwd": str(cwd),
            "send": int(send),
            "after": after,
            "limits": dict(limits or {}),
            "env": {
                **(env or {}),
                **{f"FI_{name.upper()}": str(value) for name, value in faults.items()},
                "FI_LOG": f"{log}.hits",
            },
            "timeout": timeout,
            "log": str(log),
        }
        os.write(self._orders, json.dumps(order).encode() + b"\n")
        while b"\n" not in self._buffer:
            piece = os.read(self._ours, 1 << 16)
            assert piece, "the process that forks has ended"
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        ended = json.loads(line)
        texts = []
        for suffix in ("err", "hits", "out"):
            path = Path(f"{log}.{suffix}")
            texts.append(path.read_text(errors="replace") if path.exists() else "")
            path.unlink(missing_ok=True)
        err, hits, out = texts
        return Forked(
            ended["code"],
            err,
            tuple(hits.splitlines()),
            ended["seconds"],
            ended["latency"],
            out,
            ended["peak"],
        )


def _orders(reading: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(os.dup(reading), "rb", buffering=0) as stream:
        for line in stream:
            yield json.loads(line)


def _serve(reading: int, telling: int) -> dict[str, Any] | None:
    """Fork a run for each order, and return its order in the child; None at the end."""
    for order in _orders(reading):
        begin = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            os.close(telling)
            return order
        # The end of a child shows at once, where waiting for it with a timeout would poll.
        ended = os.pidfd_open(child)
        sent = 0.0
        if order["send"]:
            select.select([ended], [], [], max(0.0, begin + order["after"] - time.monotonic()))
            sent = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(ended, order["send"])
        if not select.select([ended], [], [], order["timeout"])[0]:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        os.close(ended)
        now = time.monotonic()
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": now - begin,
            "latency": now - sent if sent else 0.0,
            "peak": usage.ru_maxrss * 1024,
        }
        os.write(telling, json.dumps(answer).encode() + b"\n")
    return None


def _become(order: Mapping[str, Any]) -> None:
    """Turn this process into the one that was ordered."""
    for number, suffix in ((1, "out"), (2, "err")):
        path = f"{order['log']}.{suffix}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    sys.argv = ["normcli", *order["arguments"]]
    for name, value in order["limits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (value, resource.getrlimit(number)[1]))
    ctypes.CDLL(None).fi_configure()


def _modules() -> Iterator[str]:
    import normcli

    for module in pkgutil.walk_packages(normcli.__path__, "normcli."):
        # numba takes long, and small arrays take the kernels of NumPy.
        if not module.name.startswith(("normcli.kernels.numba", "normcli.__main__")):
            yield module.name


def _main() -> None:
    reading, telling = int(sys.argv[1]), int(sys.argv[2])
    for name in (*_IMPORTS.split(), *_modules()):
        __import__(name)
    del sys.path[0]
    # Storage that fails is given a second to recover: too long where it fails in thousands of runs.
    from normcli import retrying

    retrying._WAITS = tuple(wait / 10 for wait in retrying._WAITS)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What is collected in the children would otherwise be copied by each.
    gc.collect()
    gc.freeze()
    order = _serve(reading, telling)
    if order is None:
        return
    _become(order)
    from normcli.cli.main import entry

    try:
        entry()
    except SystemExit as left:
        _end(left.code)


def _end(code: Any) -> None:
    """End as Python does, but for taking apart the modules that it has imported.

    That would copy 30 MB of pages from the process that forks, which is half the time of a run:
    40 of 80 ms. What the run itself holds is released, and the libraries end by their own handlers.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    ctypes.PyDLL(None).exit(int(code or 0))


if __name__ == "__main__":
    _main()
