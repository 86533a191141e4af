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
from typing import Any, Protocol

from normcli.engine.tasks import RunResult
from normcli.engine.walk import Run
from normcli.errors import OutputError

WAVE = 512

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
            Name of the output array, where there is one.
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

        with ThreadPoolExecutor(workers) as pool:
            for wave in _waves(runs, WAVE):
                work = _InOrder(task, job, wave)
                graph = {f"run-{run.number}": (work, ticket) for ticket, run in enumerate(wave)}

                def posttask(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
                    if isinstance(result, RunResult):
                        consume(result)

                with Callback(posttask=posttask):
                    get(graph, list(graph), pool=pool)

    def accept(self, inputs: Sequence[str], output: str | None, *parts: Any) -> None:
        """Threads can use everything."""

    @property
    def memory(self) -> int | None:
        """The budget is that of this process."""
        return None

    @property
    def compiled(self) -> bool:
        """This process has it."""
        return True

    def close(self) -> None:
        """Nothing stays open."""


def available_cpus() -> int:
    """Return how many CPUs this process may use: affinity, then SLURM's allocation."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allocated = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(cpus, int(allocated))) if allocated.isdigit() else cpus


class _InOrder:
    """Hands out runs in order to whichever task begins next.

    dask begins tasks that are equal to it in an order of its own (the last one first). Storage is
    best read in order, and a pipe can be read in no other.
    """

    def __init__(self, task: Task, job: Any, runs: Iterable[Run]) -> None:
        self._task = task
        self._job = job
        self._runs = iter(runs)
        self._lock = threading.Lock()

    def __call__(self, ticket: int) -> RunResult:
        """Do the next run; `ticket` only tells tasks apart."""
        with self._lock:
            run = next(self._runs)
        try:
            return self._task(self._job, run)
        except MemoryError as error:
            raise OutputError(
                "Memory ran out while a block was worked on.", "Lower --memory or -j."
            ) from error


def _waves(runs: Iterable[Run], size: int) -> Iterator[list[Run]]:
    iterator = iter(runs)
    while wave := list(itertools.islice(iterator, size)):
        yield wave
