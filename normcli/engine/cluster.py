"""The workers of a dask.distributed cluster.

Workers come and go, so nothing depends on one of them: a task may run twice (it writes whole
chunks, and its moments are taken once), and what all tasks share is itself the result of a task,
which dask makes anew where it was lost.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import pickle
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from normcli.arrays.paths import parse_path
from normcli.engine.preflight import Preflight
from normcli.engine.schedulers import Consumer, Task
from normcli.engine.walk import Run
from normcli.engine.worker import carry, load, stop
from normcli.errors import InputError, NormcliError, TransientError, UsageError

# How long tasks that are at work may take to end, after the run failed or was stopped.
SETTLE_SECONDS = 60.0

# A task that met a transient error is given out again so many times.
RETRIES = 3

# Tasks in flight for each thread of the cluster: one at work, the others on their way.
TASKS_A_THREAD = 4

# How long to wait for workers where dask's configuration says nothing of normcli.workers-timeout.
WORKERS_TIMEOUT = "60s"

_POLL_SECONDS = 1.0


class ClusterScheduler:
    """The workers of a dask.distributed cluster.

    Parameters
    ----------
    address : str, optional
        Address of the scheduler, such as ``tcp://host:8786``.
    scheduler_file : str, optional
        The JSON file that the scheduler wrote.
    at_once : int, optional
        Blocks in flight at once in one worker process; None takes its threads.

    Raises
    ------
    TransientError
        When no scheduler answers.
    """

    distributed = True

    def __init__(
        self,
        address: str | None = None,
        scheduler_file: str | None = None,
        at_once: int | None = None,
    ) -> None:
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
        _require_certificates(address or _address_in(str(scheduler_file)))
        # What is lost is told once, in an error of ours, and not by tracebacks before it.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL + 1)
        try:
            self._client = Client(
                address=address, scheduler_file=scheduler_file, timeout=20, set_as_default=False
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise TransientError(
                f"No dask scheduler answers at {where}: {error}.",
                "Start one with `dask scheduler`, and workers with `dask worker`.",
            ) from error
        self._where = str(where)
        self._at_once = at_once
        self._output = "nothing"
        self._memory: int | None = None
        self._compiled = True

    @property
    def exposed(self) -> str | None:
        """The scheduler's address, if others on the network could use it; None behind TLS."""
        scheduler: Any = self._client.scheduler
        address = str(scheduler.address)
        protocol, _, rest = address.partition("://")
        host = rest.rsplit(":", 1)[0].strip("[]")
        local = host == "localhost" or host.startswith("127.") or host == "::1"
        return None if local or protocol != "tcp" else address

    @property
    def workers(self) -> int:
        """Threads of the largest worker process, which share that process's memory."""
        threads = self._threads()
        if not threads:
            seconds = _timeout()
            try:
                self._client.wait_for_workers(1, timeout=seconds)
            except TimeoutError as error:
                raise _no_workers(self._where, seconds) from error
            threads = self._threads()
        largest = max(threads.values(), default=1)
        return min(largest, self._at_once or largest)

    @property
    def memory(self) -> int | None:
        """Bytes that the smallest worker process has for its blocks, as `accept` found out."""
        return self._memory

    @property
    def compiled(self) -> bool:
        """Whether every worker has the memory for compiled kernels, as `accept` found out."""
        return self._compiled

    def accept(self, inputs: Sequence[str], output: str | None, *parts: Any) -> None:
        """Refuse what cannot travel, and workers that see other files or run other versions.

        Raises
        ------
        InputError
            When a worker sees another input, or cannot write where the output goes.
        TransientError
            When a worker runs another version, or there is none.
        UsageError
            For a pipe.
        """
        for part in parts:
            pickle.dumps(part)
        assert self.workers  # waits for one
        preflight = Preflight(self._client)
        preflight.compare_versions()
        preflight.compare_inputs(inputs, parts[0].info.nbytes)
        if output is not None:
            preflight.try_output(output)
            # Tasks of a client that died would go on writing into what is ours now.
            self._output = _word_for(output)
            _stop_all(self._client, self._output)
        self._memory, self._compiled = preflight.memory, preflight.compiled

    def execute(
        self, task: Task, job: Any, runs: Iterable[Run], workers: int, consume: Consumer
    ) -> None:
        """Run the tasks on the cluster, with a window of them in flight.

        Raises
        ------
        InputError
            When a block ends every worker that takes it.
        TransientError
            When the scheduler is lost, or there are no workers for long.
        """
        token = f"{self._output}-{uuid.uuid4().hex}"
        flight = _Flight(self._client, self._where, task, job, workers, token)
        pending = iter(runs)
        try:
            for run in itertools.islice(pending, TASKS_A_THREAD * sum(self._threads().values())):
                flight.send(run)
            while flight.busy:
                consume(flight.next())
                for run in itertools.islice(pending, 1):
                    flight.send(run)
        except BaseException:
            # What is on the way would go on writing into a draft that is being removed.
            flight.abandon()
            raise

    def close(self) -> None:
        """Leave the cluster; its scheduler and workers go on."""
        self._client.close()

    def _threads(self) -> dict[str, int]:
        return _threads(self._client, self._where)


class _Flight:
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
        _stop_all(self._client, self._token, futures)

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
            raise _lost(self._where) from error
        except OSError as error:
            # Tasks send none of their own (see `worker.carry`): this is a broken connection.
            _threads(self._client, self._where)
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
        statuses = _statuses(self._client, self._where)
        if any(status != "paused" for status in statuses):
            self._workerless = None
            return
        now = time.monotonic()
        self._workerless = self._workerless or now
        seconds = _timeout()
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
        raise _no_workers(self._where, seconds, after)

    def _name(self, position: int) -> str:
        block = self._job.walk.block(position)
        return f"{self._job.source.name}: the block from {block.start} to {block.stop}"


def _word_for(output: str) -> str:
    """Return a word that tells outputs apart."""
    place = parse_path(output, "output").container.absolute()
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:32]


def _stop_all(client: Any, token: str, futures: Sequence[Any] = ()) -> None:
    """Stop the tasks of a pass, or of all passes of an output, and wait until none is at work."""
    deadline = time.monotonic() + SETTLE_SECONDS
    try:
        while client.status == "running" and time.monotonic() < deadline:
            counts = client.run(stop, token, on_error="ignore")
            if futures:
                client.cancel(futures)
                futures = ()
            if not any(counts.values()):
                break
            time.sleep(0.05)
    except (OSError, TimeoutError, RuntimeError):
        pass  # The scheduler is gone, and takes its workers with it.


def _putter(queue: SimpleQueue[str], key: str) -> Callable[[Any], None]:
    return lambda future: queue.put(key)


def _threads(client: Any, where: str) -> dict[str, int]:
    if client.status != "running":
        raise _lost(where)
    try:
        return dict(client.nthreads())
    except (OSError, TimeoutError, RuntimeError) as error:
        raise _lost(where) from error


def _statuses(client: Any, where: str) -> list[str]:
    _threads(client, where)  # tells where the scheduler is lost
    return [str(facts["status"]) for facts in client.scheduler_info()["workers"].values()]


def _address_in(scheduler_file: str) -> str:
    try:
        return str(json.loads(Path(scheduler_file).read_text())["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{scheduler_file} is no scheduler file: {error}.",
            "dask scheduler --scheduler-file FILE writes it.",
        ) from error


def _require_certificates(address: str) -> None:
    """Refuse a scheduler behind TLS where dask's configuration names no certificate."""
    import dask
    import distributed  # noqa: F401 - its defaults are part of the configuration

    if not address.startswith("tls://"):
        return
    for name in ("ca-file", "client.cert"):
        if not dask.config.get(f"distributed.comm.tls.{name}", None):
            raise UsageError(
                f"The scheduler at {address} wants TLS, but dask's distributed.comm.tls.{name} is "
                "not set.",
                "docs/clusters.md shows the variables; they are those of scheduler and workers.",
            )


def _timeout() -> float:
    import dask
    from dask.utils import parse_timedelta

    given = dask.config.get("normcli.workers-timeout", WORKERS_TIMEOUT)
    return float(parse_timedelta(given))


def _lost(where: str) -> TransientError:
    return TransientError(
        f"The connection to the dask scheduler at {where} was lost.",
        "Start scheduler and workers again, then give the same command again.",
    )


def _no_workers(where: str, seconds: float, suspect: str | None = None) -> TransientError:
    after = "" if suspect is None else f"; the last ones died with {suspect}"
    return TransientError(
        f"The dask scheduler at {where} has had no workers for {seconds:g} s{after}.",
        "Start some with `dask worker`; DASK_NORMCLI__WORKERS_TIMEOUT=10m waits longer.",
    )
