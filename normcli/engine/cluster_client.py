"""What is asked of a client of a cluster, with what each failure means."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from normcli.engine.worker import stop
from normcli.errors import TransientError

# How long tasks that are at work may take to end, after the run failed or was stopped.
SETTLE_SECONDS = 60.0
# How long to wait for workers where dask's configuration says nothing of normcli.workers-timeout.
WORKERS_TIMEOUT = "60s"


def stop_all(client: Any, token: str, futures: Sequence[Any] = ()) -> None:
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


def threads_of(client: Any, where: str) -> dict[str, int]:
    """Return the threads of each worker, by its address.

    Raises
    ------
    TransientError
        When the scheduler is lost.
    """
    if client.status != "running":
        raise connection_lost(where)
    try:
        return dict(client.nthreads())
    except (OSError, TimeoutError, RuntimeError) as error:
        raise connection_lost(where) from error


def statuses_of(client: Any, where: str) -> list[str]:
    """Return the status of each worker, such as ``running`` or ``paused``.

    Raises
    ------
    TransientError
        When the scheduler is lost.
    """
    threads_of(client, where)  # tells where the scheduler is lost
    return [str(facts["status"]) for facts in client.scheduler_info()["workers"].values()]


def workers_timeout() -> float:
    """Return for how many seconds workers are waited for."""
    import dask
    from dask.utils import parse_timedelta

    given = dask.config.get("normcli.workers-timeout", WORKERS_TIMEOUT)
    return float(parse_timedelta(given))


def connection_lost(where: str) -> TransientError:
    """Return the error for a scheduler that does not answer any more."""
    return TransientError(
        f"The connection to the dask scheduler at {where} was lost.",
        "Start scheduler and workers again, then give the same command again.",
    )


def no_workers(where: str, seconds: float, suspect: str | None = None) -> TransientError:
    """Return the error for a cluster without workers, with the blocks that ended the last ones."""
    after = "" if suspect is None else f"; the last ones died with {suspect}"
    return TransientError(
        f"The dask scheduler at {where} has had no workers for {seconds:g} s{after}.",
        "Start some with `dask worker`; DASK_NORMCLI__WORKERS_TIMEOUT=10m waits longer.",
    )
