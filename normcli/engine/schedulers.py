"""The one place that knows dask: threads here, or workers anywhere, run the same graph.

A graph holds one task a run of blocks; its results go to a consumer in this thread, in any order
of arrival. Graphs are handed over in waves, so that a million blocks need no million tasks in
memory at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from normcli.engine.stopping import obey
from normcli.engine.tasks import RunResult
from normcli.engine.walk import Run
from normcli.errors import InputError, NormcliError, OutputError, TransientError, UsageError

WAVE = 512

# Runs that one thread does in one dask task, as long as each thread gets several tasks: a task
# costs dask 0.15 ms, and 8 MiB are read and measured in 1.2.
RUNS_A_TASK = 4
TASKS_A_WORKER = 8

# How long tasks that are on the way may take to end, after one of them failed.
SETTLE_SECONDS = 60

Task = Callable[[Any, Run], RunResult]
Consumer = Callable[[RunResult], None]


class Scheduler(Protocol):
    """Runs one task for each run of blocks."""

    distributed: bool

    @property
    def workers(self) -> int:
        """Blocks that may be in flight at once where memory is shared."""
        ...

    def execute(
        self, task: Task, job: Any, runs: Iterable[Run], workers: int, consume: Consumer
    ) -> None:
        """Call ``task(job, run)`` for every run, and `consume` with each result."""
        ...

    def accept(self, *parts: Any) -> None:
        """Refuse sources and sinks that the workers could not use, before anything is read."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class ThreadScheduler:
    """dask's threaded scheduler in this process."""

    distributed = False

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or available_cpus()

    @property
    def workers(self) -> int:
        """Threads to use at most."""
        return self._workers

    def execute(
        self, task: Task, job: Any, runs: Iterable[Run], workers: int, consume: Consumer
    ) -> None:
        """Run the tasks on `workers` threads; the first error stops everything."""
        from concurrent.futures import ThreadPoolExecutor

        from dask.callbacks import Callback
        from dask.threaded import get

        stop = threading.Event()
        with ThreadPoolExecutor(workers, initializer=obey, initargs=(stop,)) as pool:
            for wave in _waves(runs, WAVE):
                count = max(1, min(RUNS_A_TASK, len(wave) // (TASKS_A_WORKER * workers)))
                work = _InOrder(task, job, wave, count)
                first = wave[0].number
                tickets = range(-(-len(wave) // count))
                graph = {f"run-{first}-{ticket}": (work, ticket) for ticket in tickets}

                def posttask(key: Any, results: Any, dsk: Any, state: Any, worker: Any) -> None:
                    for result in results:
                        consume(result)
                    # dask keeps what a task returned until the whole wave is done.
                    results.clear()

                try:
                    with Callback(posttask=posttask):
                        get(graph, list(graph), pool=pool)
                except BaseException:
                    # Other tasks end at their next block; the pool waits for them.
                    stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def accept(self, *parts: Any) -> None:
        """Threads can use everything."""

    def close(self) -> None:
        """Nothing stays open."""


class ClusterScheduler:
    """The workers of a dask.distributed cluster.

    Parameters
    ----------
    address : str, optional
        Address of the scheduler, such as ``tcp://host:8786``.
    scheduler_file : str, optional
        The JSON file that the scheduler wrote.

    Raises
    ------
    TransientError
        When no scheduler answers.
    """

    distributed = True

    def __init__(self, address: str | None = None, scheduler_file: str | None = None) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise UsageError(
                "--scheduler needs the package distributed.", "pip install 'normcli[cluster]'"
            ) from error
        if scheduler_file is not None and not os.path.exists(scheduler_file):
            raise InputError(
                f"There is no scheduler file {scheduler_file}.",
                "dask scheduler --scheduler-file FILE writes it.",
            )
        where = address or scheduler_file
        try:
            self._client = Client(
                address=address, scheduler_file=scheduler_file, timeout=20, set_as_default=False
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise TransientError(
                f"No dask scheduler answers at {where}: {error}.",
                "Start one with `dask scheduler`, and workers with `dask worker`.",
            ) from error

    @property
    def workers(self) -> int:
        """Threads of the largest worker process, which share that process's memory."""
        threads = self._client.nthreads()
        if not threads:
            self._client.wait_for_workers(1, timeout=60)
            threads = self._client.nthreads()
        return max(threads.values())

    def execute(
        self, task: Task, job: Any, runs: Iterable[Run], workers: int, consume: Consumer
    ) -> None:
        """Run the tasks on the cluster, with a window of them in flight."""
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        shared = self._client.scatter(job, broadcast=True, hash=False)
        pending = iter(runs)
        in_flight = as_completed(loop=self._client.loop)
        unfinished: set[Any] = set()

        def submit(count: int) -> None:
            for run in itertools.islice(pending, count):
                future = self._client.submit(task, shared, run, pure=False)
                unfinished.add(future)
                in_flight.add(future)

        try:
            submit(4 * max(1, sum(self._client.nthreads().values())))
            for future in in_flight:
                unfinished.discard(future)
                consume(future.result())
                submit(1)
        except NormcliError:
            # What is on the way would go on writing into a draft that is being removed.
            _settle(unfinished)
            raise
        except KilledWorker as error:
            raise TransientError(
                f"A worker died again and again: {error}.",
                "Give workers more memory, or lower --memory so that blocks are smaller.",
            ) from error
        finally:
            in_flight.clear()
            unfinished.clear()

    def accept(self, *parts: Any) -> None:
        """Refuse what cannot travel; a pipe says so in its own words."""
        for part in parts:
            pickle.dumps(part)

    def close(self) -> None:
        """Leave the cluster; its scheduler and workers go on."""
        self._client.close()


def _settle(futures: Iterable[Any]) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    with contextlib.suppress(TimeoutError):
        for future in futures:
            future.exception(timeout=max(0.0, deadline - time.monotonic()))


def available_cpus() -> int:
    """Return how many CPUs this process may use: affinity, then SLURM's allocation."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allocated = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(cpus, int(allocated))) if allocated.isdigit() else cpus


class _InOrder:
    """Hands out runs in order, some at a time, to whichever task begins next.

    dask begins tasks that are equal to it in an order of its own (the last one first). Storage is
    best read in order, and a pipe can be read in no other.
    """

    def __init__(self, task: Task, job: Any, runs: Iterable[Run], count: int) -> None:
        self._task = task
        self._job = job
        self._runs = iter(runs)
        self._count = count
        self._lock = threading.Lock()

    def __call__(self, ticket: int) -> list[RunResult]:
        """Do the next runs; `ticket` only tells tasks apart."""
        with self._lock:
            runs = list(itertools.islice(self._runs, self._count))
        try:
            return [self._task(self._job, run) for run in runs]
        except MemoryError as error:
            raise OutputError(
                "Memory ran out while a block was worked on.", "Lower --memory or -j."
            ) from error


def _waves(runs: Iterable[Run], size: int) -> Iterator[list[Run]]:
    iterator = iter(runs)
    while wave := list(itertools.islice(iterator, size)):
        yield wave
