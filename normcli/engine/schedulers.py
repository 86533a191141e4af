"""dask's threads in this process; the workers of a cluster are in `engine.cluster`.

A graph holds one task a run of blocks; its results go to a consumer in this thread, in any order
of arrival. Graphs are handed over in waves, so that a million blocks need no million tasks in
memory at once.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from normcli.engine.resources import require_room_for_threads
from normcli.engine.stopping import obey
from normcli.engine.tasks import RunResult
from normcli.engine.walk import Run
from normcli.errors import OutputError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

WAVE = 512

# Runs that one thread does in one dask task, as long as each thread gets several tasks: a task
# costs dask 0.15 ms, and 8 MiB are read and measured in 1.2.
RUNS_A_TASK = 4
TASKS_A_WORKER = 8

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

    def accept(self, inputs: Sequence[str], output: str | None, *parts: Any) -> None:
        """Refuse what the workers could not read or write, before anything is read.

        Parameters
        ----------
        inputs : sequence of str
            Names of the input arrays.
        output : str or None
            Name of the output array, if this run is going to write it; its place is owned already.
        *parts
            The source and the sink, which travel to the workers.
        """
        ...

    @property
    def memory(self) -> int | None:
        """Bytes that the smallest worker process has for its blocks; None in this process."""
        ...

    @property
    def compiled(self) -> bool:
        """Whether there is memory for compiled kernels."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class ThreadScheduler:
    """dask's threaded scheduler in this process."""

    distributed = False

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or available_cpus()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._stop = threading.Event()

    @property
    def workers(self) -> int:
        """Threads to use at most."""
        return self._workers

    def execute(
        self, task: Task, job: Any, runs: Iterable[Run], workers: int, consume: Consumer
    ) -> None:
        """Run the tasks on `workers` threads; the first error stops everything."""
        from dask.callbacks import Callback
        from dask.threaded import get

        pool = self._threads(workers)
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
                self._abandon()
                raise

    def _threads(self, workers: int) -> ThreadPoolExecutor:
        """Return the pool of all passes: its threads begin once, while there is room for them."""
        from concurrent.futures import ThreadPoolExecutor

        if self._pool is None or self._pool[0] != workers:
            self.close()
            require_room_for_threads(workers)
            self._stop = threading.Event()
            pool = ThreadPoolExecutor(workers, initializer=obey, initargs=(self._stop,))
            self._pool = workers, pool
        return self._pool[1]

    def _abandon(self) -> None:
        """Let the other tasks end at their next block, and wait for them."""
        self._stop.set()
        self.close()

    def accept(self, inputs: Sequence[str], output: str | None, *parts: Any) -> None:
        """Threads can use everything."""

    @property
    def memory(self) -> int | None:
        """The budget is that of this process."""
        return None

    @property
    def compiled(self) -> bool:
        """Compiled kernels fit this process."""
        return True

    def close(self) -> None:
        """Let the threads end, after the tasks that run."""
        if self._pool is not None:
            self._pool[1].shutdown(wait=True, cancel_futures=True)
            self._pool = None


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
