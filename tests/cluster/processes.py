"""Real schedulers and workers, as processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

DASK = (sys.executable, "-m", "dask")

# Reads take long enough that kills meet them; chosen blocks do worse. Loaded by the workers.
ODD_READS = """
    import os, signal, time
    from normcli.arrays import npy
    # A nanny and its worker may load this twice in one process.
    read = getattr(npy.RawSource.read, "real", npy.RawSource.read)
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} of {b}")
        def __reduce__(self):
            raise TypeError("this exception cannot be pickled")
    def odd(self, block, *rest, **more):
        time.sleep(float(os.environ.get("SLOW", "0")))
        start = str(block.start[0])
        if start == os.environ.get("KILLS"):
            os.kill(os.getpid(), signal.SIGKILL)
        mark = os.environ.get("KILLS_ONCE")
        if mark and start == "36" and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if start == os.environ.get("UNPICKLABLE"):
            raise Odd("a codec", "its own")
        once = os.environ.get("FAILS_ONCE")
        if once and not os.path.exists(f"{once}-{start}"):
            open(f"{once}-{start}", "w").close()
            from normcli.arrays.files import read_error
            error = OSError(116, "Stale file handle")
            raise read_error(self.name, error) from error
        return read(self, block, *rest, **more)
    odd.real = read
    npy.RawSource.read = odd
"""


class Cluster:
    """A scheduler and its workers in one folder.

    Parameters
    ----------
    folder : Path
        Where the scheduler file, logs and scratch files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "scheduler.json"
        self.preload = folder / "odd_reads.py"
        self.preload.write_text(textwrap.dedent(ODD_READS))
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._log = open(folder / "log.txt", "ab")  # noqa: SIM115

    def start_scheduler(self, *options: str, **env: str) -> None:
        host = () if "--host" in options else ("--host", "127.0.0.1")
        command = (*DASK, "scheduler", *host, "--port", "0", "--no-dashboard", *options)
        self.scheduler = self._start((*command, "--scheduler-file", str(self.file)), env)
        self._wait(lambda: self.file.exists() and self.file.stat().st_size > 0)

    def start_worker(
        self, *options: str, prefix: tuple[str, ...] = (), nanny: bool = False, **env: str
    ) -> None:
        host = () if "--host" in options else ("--host", "127.0.0.1")
        self.workers.append(
            self._start(
                (
                    *(*prefix, *DASK, "worker", "--scheduler-file", str(self.file), *host),
                    *("--nthreads", "1", "--no-dashboard", "--nanny" if nanny else "--no-nanny"),
                    *("--local-directory", str(self.folder), "--preload", str(self.preload)),
                    *options,
                ),
                env,
            )
        )

    def wait_for_workers(self, count: int, **security: Any) -> None:
        from distributed import Client

        with Client(scheduler_file=str(self.file), timeout=30, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)

    def worker_processes(self) -> list[psutil.Process]:
        """The processes that do tasks: with a nanny, its children."""
        found = []
        for worker in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(worker.pid)
                children = [c for c in process.children(True) if "spawn_main" in str(c.cmdline())]
                found += children or ([process] if "--no-nanny" in process.cmdline() else [])
        return found

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def end_workers(self) -> None:
        """End all workers, and return when the scheduler knows."""
        from distributed import Client

        _kill(self.workers)
        self.workers.clear()
        with Client(scheduler_file=str(self.file), timeout=30, set_as_default=False) as client:
            self._wait(lambda: not client.scheduler_info(n_workers=-1)["workers"])

    def close(self) -> None:
        _kill([*self.workers, *([self.scheduler] if self.scheduler else [])])
        self._log.close()

    def _start(self, command: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[bytes]:
        # A group of its own, so that a nanny and its children end together.
        return subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            # Should these tests be killed, the scheduler ends by itself, and its workers with it.
            env={
                **os.environ,
                "DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": "10m",
                # What a worker that was killed still held is asked for, by default for 30 s.
                "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
                **env,
            },
            start_new_session=True,
        )

    def _wait(self, condition: Any, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)


def _kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@contextlib.contextmanager
def cluster(
    folder: Path, workers: int = 2, *, nanny: bool = False, **env: str
) -> Iterator[Cluster]:
    """A running cluster of single-threaded workers with some environment."""
    made = Cluster(folder)
    try:
        made.start_scheduler(**env)
        for _ in range(workers):
            made.start_worker(nanny=nanny, **env)
        if workers:
            made.wait_for_workers(workers)
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def killing(made: Cluster, seconds: float) -> Iterator[list[int]]:
    """Kill one worker process every so many seconds; nannies start new ones."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        random = np.random.default_rng(len(killed))
        while not over.wait(seconds):
            alive = made.worker_processes()
            if alive:
                victim = alive[int(random.integers(len(alive)))]
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
