"""The tasks of one pass on their way through a cluster: given out, taken back, given out again."""

from __future__ import annotations

import pickle
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from normcli.engine.cluster_client import (
    connection_lost,
    no_workers,
    statuses_of,
    stop_all,
    threads_of,
    workers_timeout,
)
from normcli.engine.schedulers import Task
from normcli.engine.walk import Run
from normcli.engine.worker import carry, load
from normcli.errors import InputError, NormcliError, TransientError

# A task that met a transient error is given out again so many times.
RETRIES = 3
_POLL_SECONDS = 1.0


class Flight:
    """The tasks of one pass that are on their way."""

    def __init__(
        self, client: Any, where: str, task: Task, job: Any, at_once: int, token: str
    ) -> None:
        self._client, self._where, self._task, self._job = client, where, task, job
        self._at_once = at_once
        self._token = token
        self._done: SimpleQueue[str] = SimpleQueue()
        self._sent: dict[str, tuple[Any, Run]] = {}
        self._tries: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._suspect: Run | None = None
        self._workerless: float | None = None
        with warnings.catch_warnings():
            # Tables of many groups are large, and are sent once.
            warnings.filterwarnings("ignore", message="Sending large graph")
            self._shared = client.submit(load, pickle.dumps(job), key=f"normcli-job-{self._token}")

    @property
    def busy(self) -> bool:
        """Whether a task is on its way."""
        return bool(self._sent)

    def send(self, run: Run) -> None:
        """Give out one run."""
        self._submit(run)

    def next(self) -> Any:
        """Return the result of some run that is done."""
        from distributed.scheduler import KilledWorker

        while True:
            key = self._await_key()
            future, run = self._sent.pop(key)
            try:
                return self._result(future)
            except KilledWorker as error:
                self._examine(run, error)
                self._submit(run)
            except TransientError:
                self._tries[run.number] += 1
                if self._tries[run.number] > RETRIES or self._client.status != "running":
                    raise
                self._submit(run)

    def abandon(self) -> None:
        """Stop all tasks, and wait until none is at work any more."""
        futures = [future for future, _ in self._sent.values()]
        self._sent.clear()
        stop_all(self._client, self._token, futures)

    def _submit(self, run: Run) -> str:
        arguments = (self._task, self._shared, run, self._token, self._at_once)
        key = f"normcli-{self._task.__name__}-{uuid.uuid4().hex}"
        future = self._client.submit(carry, *arguments, key=key, pure=False)
        self._sent[key] = (future, run)
        future.add_done_callback(_putter(self._done, key))
        return key

    def _await_key(self, wanted: str | None = None) -> str:
        """Return the key of a task that is done; a wanted one lets others wait."""
        others: list[str] = []
        while True:
            try:
                key = self._done.get(timeout=_POLL_SECONDS)
            except Empty:
                self._require_workers()
                continue
            self._workerless = None
            if key in self._sent and wanted in (None, key):
                for other in others:
                    self._done.put(other)
                return key
            if key in self._sent:
                others.append(key)

    def _result(self, future: Any) -> Any:
        from concurrent.futures import CancelledError

        try:
            return future.result()
        except CancelledError as error:
            raise connection_lost(self._where) from error
        except OSError as error:
            # Tasks send none of their own (see `worker.carry`): this is a broken connection.
            threads_of(self._client, self._where)
            raise TransientError(f"A result was lost on its way here: {error}.") from error

    def _examine(self, run: Run, error: Exception) -> None:
        """Find the block that ends workers: each of the run by itself.

        A task is given up when several workers died with it; but that may be chance, where workers
        die for other reasons. What ends a worker again, alone, is named.
        """
        from distributed.scheduler import KilledWorker

        self._suspect = run
        self._deaths[run.number] += 1
        for position in range(run.first, run.first + run.count):
            key = self._submit(Run(run.number, position, 1, 0))
            self._await_key(wanted=key)
            future, _ = self._sent.pop(key)
            try:
                self._result(future)
            except KilledWorker as again:
                raise InputError(
                    f"{self._name(position)} ends every worker that takes it.",
                    "Either a decoder crashes on it, or it takes more memory than a worker has: "
                    "the logs of the workers tell. A smaller --memory makes smaller blocks.",
                ) from again
            except TransientError:
                if self._client.status != "running":
                    raise
            except NormcliError:
                return  # The run as a whole will say it again.
        if self._deaths[run.number] > RETRIES:
            raise TransientError(
                f"Workers died again and again with {self._name(run.first)} and the "
                f"{run.count - 1} blocks after it, though each alone went well.",
                "Give workers more memory, or lower --memory so that blocks are smaller.",
            ) from error
        self._suspect = None

    def _require_workers(self) -> None:
        """Give up where there has been no worker for long."""
        statuses = statuses_of(self._client, self._where)
        if any(status != "paused" for status in statuses):
            self._workerless = None
            return
        now = time.monotonic()
        self._workerless = self._workerless or now
        seconds = workers_timeout()
        if now - self._workerless < seconds:
            return
        if statuses:
            raise TransientError(
                f"All {len(statuses)} workers have been paused for {seconds:g} s: their memory is "
                "full.",
                "Start workers with a larger --memory-limit, or with fewer threads.",
            )
        suspect = self._suspect
        after = None if suspect is None else self._name(suspect.first)
        raise no_workers(self._where, seconds, after)

    def _name(self, position: int) -> str:
        block = self._job.walk.block(position)
        return f"{self._job.source.name}: the block from {block.start} to {block.stop}"


def _putter(queue: SimpleQueue[str], key: str) -> Callable[[Any], None]:
    return lambda future: queue.put(key)
