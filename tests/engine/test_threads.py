"""Tasks on the threads of this process."""

from __future__ import annotations

import threading

import pytest

from normcli.engine.events import Progress
from normcli.engine.schedulers import WAVE, ThreadScheduler
from normcli.engine.tasks import RunResult
from normcli.engine.walk import Run
from normcli.errors import InputError


def runs(count):
    return [Run(number, number, 1, 0) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 64, 65, WAVE, WAVE + 1, 2 * WAVE + 130])
def test_every_run_is_done_once_and_begun_in_order(workers, count):
    begun, lock, consumed = [], threading.Lock(), []

    def task(job, run):
        with lock:
            begun.append(run.number)
        return RunResult(run, Progress(1, 0, 0))

    ThreadScheduler(workers).execute(
        task, None, runs(count), workers, lambda result: consumed.append(result.run.number)
    )
    assert sorted(consumed) == sorted(begun) == list(range(count))
    if workers == 1:
        assert begun == list(range(count))


def test_few_runs_are_spread_over_all_workers():
    seen = set()
    meet = threading.Barrier(4, timeout=30)

    def task(job, run):
        meet.wait()  # passes only if four runs are under way at once
        seen.add(threading.get_ident())
        return RunResult(run, Progress(1, 0, 0))

    ThreadScheduler(4).execute(task, None, runs(8), 4, lambda result: None)
    assert len(seen) == 4


def test_the_first_error_ends_the_rest():
    begun = []

    def task(job, run):
        begun.append(run.number)
        if run.number == 70:
            raise InputError("no")
        return RunResult(run, Progress(1, 0, 0))

    with pytest.raises(InputError, match="no"):
        ThreadScheduler(1).execute(task, None, runs(200), 1, lambda result: None)
    assert max(begun) == 70
