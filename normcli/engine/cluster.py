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
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from normcli.arrays.paths import parse_path
from normcli.engine.cluster_address import refuse_exposed, require_scheduler
from normcli.engine.cluster_client import (
    no_workers,
    stop_all,
    threads_of,
    workers_timeout,
)
from normcli.engine.cluster_flight import Flight
from normcli.engine.preflight import Preflight
from normcli.engine.schedulers import Consumer, Task
from normcli.engine.walk import Run
from normcli.errors import InputError, TransientError, UsageError, missing_package

# Tasks in flight for each thread of the cluster: one at work, the others on their way.
TASKS_A_THREAD = 4


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
    insecure : bool
        Whether the scheduler may be on a network without encryption.

    Raises
    ------
    SafetyError
        When it is, and may not be.
    TransientError
        When no scheduler answers.
    """

    distributed = True

    def __init__(
        self,
        address: str | None = None,
        scheduler_file: str | None = None,
        at_once: int | None = None,
        insecure: bool = False,
    ) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise missing_package("--scheduler", "distributed", "cluster") from error
        if scheduler_file is not None and not os.path.exists(scheduler_file):
            raise InputError(
                f"There is no scheduler file {scheduler_file}.",
                "dask scheduler --scheduler-file FILE writes it.",
            )
        where = address or scheduler_file
        named = address or _address_in(str(scheduler_file))
        if not insecure:
            refuse_exposed(named)
        _require_certificates(named)
        require_scheduler(named)
        # What is lost is told once, in an error of ours, and not by tracebacks before it.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL + 1)
        try:
            self._client = Client(
                address=address, scheduler_file=scheduler_file, timeout=20, set_as_default=False
            )
        except Exception as error:
            # Of what another kind of server answers, dask takes the first bytes for a length.
            reason = "what answers is none" if isinstance(error, MemoryError) else str(error)
            raise TransientError(
                f"No dask scheduler answers at {where}: {reason.rstrip('.')}.",
                "Start one with `dask scheduler`, and workers with `dask worker`.",
            ) from error
        self._where = str(where)
        self._at_once = at_once
        self._output = "nothing"
        self._memory: int | None = None
        self._compiled = True

    @property
    def workers(self) -> int:
        """Threads of the largest worker process, which share that process's memory."""
        threads = self._threads()
        if not threads:
            seconds = workers_timeout()
            try:
                self._client.wait_for_workers(1, timeout=seconds)
            except TimeoutError as error:
                raise no_workers(self._where, seconds) from error
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
            stop_all(self._client, self._output)
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
        flight = Flight(self._client, self._where, task, job, workers, token)
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
        return threads_of(self._client, self._where)


def _word_for(output: str) -> str:
    """Return a word that tells outputs apart."""
    place = parse_path(output, "output").container.absolute()
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:32]


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
