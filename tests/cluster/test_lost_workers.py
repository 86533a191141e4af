"""Workers, schedulers and clients that die in the middle of a run."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

import normcli
from normcli.engine import worker
from normcli.engine.stopping import Abandoned, check_stop
from normcli.engine.tasks import apply_run
from normcli.errors import InputError
from tests.cli.terminal import NORMCLI, environment
from tests.figures import Figures

pytest.importorskip("distributed")

from .processes import cluster, killing

# Measured in 16 blocks of 4 observations: the budget is as small as they allow.
X = np.random.default_rng(77).normal(5, 3, (64, 4, 64, 64)).astype("f4")
OPTIONS = {"layout": "NCHW", "memory": "4400KiB"}
COMMON = ("--layout", "NCHW", "--memory", "4400KiB", "--mode", "instance")
WORK = ".y.npy.normcli-work"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "x.npy", X)
    return folder


def bits(fitted: normcli.FittedStatistics) -> tuple[bytes, ...]:
    moments = fitted.statistics.moments
    assert moments is not None
    return tuple(
        getattr(moments, name).tobytes()
        for name in ("count", "mean", "m2", "minimum", "maximum", "nonfinite")
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def storm(data: Path, folder: Path, runs: int, every: float, figures: Figures) -> int:
    """Fit and apply while workers are killed; return how many were."""
    x = data / "x.npy"
    here = bits(normcli.fit(x, **OPTIONS))
    normcli.apply(x, data / "here.npy", **OPTIONS)
    wanted = np.load(data / "here.npy").tobytes()
    total = 0
    with cluster(folder, 2, nanny=True, SLOW="0.1") as made:
        file = str(made.file)
        for number in range(runs):
            with killing(made, every) as killed:
                assert bits(normcli.fit(x, scheduler_file=file, **OPTIONS)) == here
                output = data / f"there-{number}.npy"
                normcli.apply(x, output, scheduler_file=file, **OPTIONS)
            total += len(killed)
            figures.count("R9", runs=1, workers_killed=len(killed))
            assert np.load(output).tobytes() == wanted
            figures.count("R9", identical=1)
            for path in data.glob(f"{output.name}*"):
                path.unlink()
    assert names(data) == ["here.npy", "here.npy.manifest.jsonl", "here.npy.stats.json", "x.npy"]
    return total


def test_a_worker_that_dies_changes_no_bit(data, tmp_path):
    here = bits(normcli.fit(data / "x.npy", **OPTIONS))
    mark = tmp_path / "killed"
    with cluster(tmp_path / "cluster", 2, KILLS_ONCE=str(mark)) as made:
        there = normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
    assert mark.exists()
    assert bits(there) == here


@pytest.mark.slow
def test_a_worker_is_killed_every_second(data, tmp_path):
    assert storm(data, tmp_path / "cluster", 1, 1.0, Figures([])) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_runs_with_a_worker_killed_every_two_seconds(data, tmp_path, figures):
    assert storm(data, tmp_path / "cluster", 20, 2.0, figures) >= 20


@pytest.mark.slow
def test_a_block_that_ends_every_worker_is_named(data, tmp_path):
    env = {"KILLS": "36", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with cluster(tmp_path / "cluster", 2, nanny=True, **env) as made:
        with pytest.raises(InputError) as caught:
            normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
        message = caught.value.message
        assert "x.npy: the block from (36, 0, 0, 0) to (40, 4, 64, 64)" in message
        assert "ends every worker" in message
        assert "KilledWorker" not in message
        assert caught.value.hint


def test_an_exception_that_cannot_be_pickled_keeps_its_message(data, tmp_path):
    with cluster(tmp_path / "cluster", 1, UNPICKLABLE="4") as made:
        with pytest.raises(InputError) as caught:
            normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
        assert "Odd: a codec of its own" in caught.value.message
        assert "x.npy" in caught.value.message


def test_what_goes_by_is_tried_again(data, tmp_path):
    here = bits(normcli.fit(data / "x.npy", **OPTIONS))
    mark = tmp_path / "failed"
    with cluster(tmp_path / "cluster", 2, FAILS_ONCE=str(mark)) as made:
        there = normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
    assert bits(there) == here
    assert len(list(tmp_path.glob("failed-*"))) == 16


def start(data: Path, made, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(NORMCLI, "apply", str(data / "x.npy"), "-o", str(data / "y.npy"), *COMMON),
            *("--scheduler-file", str(made.file), *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )


def wait_for_journal(data: Path) -> None:
    """Return when some blocks are done, but not all."""
    journal = data / WORK / "journal"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline, "nothing was written down"
        time.sleep(0.02)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file under a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def finish(data: Path, *arguments: str) -> None:
    """Continue here, without a cluster, and compare with a run that was not disturbed."""
    command = [NORMCLI, "apply", data / "x.npy", "-o", data / "y.npy", *COMMON, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert ended.returncode == 0, ended.stderr
    assert "were done by an interrupted run" in ended.stderr
    normcli.apply(data / "x.npy", data / "here.npy", mode="instance", **OPTIONS)
    assert (data / "y.npy").read_bytes() == (data / "here.npy").read_bytes()
    assert not (data / WORK).exists()


def test_a_lost_scheduler_leaves_a_run_that_can_be_continued(data, tmp_path):
    with cluster(tmp_path / "cluster", 2, SLOW="0.2") as made:
        client = start(data, made)
        wait_for_journal(data)
        assert made.scheduler is not None
        made.scheduler.kill()
        _, err = client.communicate(timeout=60)
    assert client.returncode == 6, err
    assert "The connection to the dask scheduler at" in err
    assert "Hint: Start scheduler and workers again, then give the same command again." in err
    assert "Traceback" not in err
    assert names(data) == [WORK, "x.npy"]
    # The workers went with it; nothing of theirs comes later.
    before = state(data)
    time.sleep(1)
    assert state(data) == before
    finish(data)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_nothing_comes_after_a_stopped_client(data, tmp_path, number):
    with cluster(tmp_path / "cluster", 2, SLOW="0.1") as made:
        client = start(data, made)
        wait_for_journal(data)
        begin = time.monotonic()
        client.send_signal(number)
        _, err = client.communicate(timeout=60)
        assert time.monotonic() - begin < 5
        assert client.returncode == 128 + number, err
        assert names(data) == [WORK, "x.npy"]
        before = state(data)
        time.sleep(1)
        assert state(data) == before
        # The cluster is free for others at once.
        fitted = normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
        assert fitted.count.sum() == X.size
    finish(data)


def test_all_passes_of_an_output_are_stopped_by_its_name(data):
    """As the next client does, whose output a client that died would go on writing into."""
    begun, on = threading.Event(), threading.Event()

    def task(job, number):
        begun.set()
        assert on.wait(30)
        check_stop()

    def attempt() -> None:
        with pytest.raises(Abandoned):
            worker.carry(task, source_named("x"), None, "output-first", 1)

    def source_named(name: str) -> SimpleNamespace:
        return SimpleNamespace(source=SimpleNamespace(name=name), kernel="numpy")

    stale = threading.Thread(target=attempt)
    stale.start()
    assert begun.wait(30)
    assert worker.stop("another") == 0
    assert worker.stop("output") == 1
    on.set()
    stale.join()
    assert worker.stop("output") == 0
    attempt()  # what was on its way does not begin


def test_no_workers_at_all(data, tmp_path):
    with cluster(tmp_path / "cluster", 0) as made:
        begin = time.monotonic()
        client = start(data, made, DASK_NORMCLI__WORKERS_TIMEOUT="1s")
        _, err = client.communicate(timeout=60)
        assert 1 <= time.monotonic() - begin < 20
    assert client.returncode == 6, err
    assert "has had no workers for 1 s" in err
    assert "Hint: Start some with `dask worker`" in err
    assert names(data) == ["x.npy"]


@pytest.mark.slow
def test_all_workers_gone_in_the_middle(data, tmp_path):
    with cluster(tmp_path / "cluster", 2, SLOW="0.3") as made:
        client = start(data, made, DASK_NORMCLI__WORKERS_TIMEOUT="3s")
        wait_for_journal(data)
        for process in made.worker_processes():
            process.kill()
        _, err = client.communicate(timeout=90)
    assert client.returncode == 6, err
    assert "has had no workers for 3 s" in err
    assert names(data) == [WORK, "x.npy"]
    finish(data)


@pytest.mark.slow
def test_workers_that_come_late_are_waited_for(data, tmp_path):
    with cluster(tmp_path / "cluster", 1, SLOW="0.1") as made:
        client = start(data, made)
        wait_for_journal(data)
        for process in made.worker_processes():
            process.kill()
        time.sleep(3)
        made.start_worker()
        _, err = client.communicate(timeout=90)
    assert client.returncode == 0, err
    normcli.apply(data / "x.npy", data / "here.npy", mode="instance", **OPTIONS)
    assert (data / "y.npy").read_bytes() == (data / "here.npy").read_bytes()


def test_a_task_that_runs_twice_at_once_changes_nothing(data, monkeypatch):
    from normcli.engine.schedulers import ThreadScheduler

    class Twice(ThreadScheduler):
        """Every task is done by two threads at once, as after a heartbeat that got lost."""

        def execute(self, task, job, runs, workers, consume):
            def doubled(job, run):
                other = threading.Thread(target=task, args=(job, run))
                other.start()
                try:
                    return task(job, run)
                finally:
                    other.join()

            assert task is apply_run
            super().execute(doubled, job, runs, workers, consume)

    zarr.create_array(data / "x.zarr", data=X, chunks=(1, 4, 64, 64))
    for suffix, memory in ((".npy", "4400KiB"), (".zarr", "5MiB")):
        options = {"mode": "instance", "layout": "NCHW", "memory": memory}
        once = normcli.apply(data / f"x{suffix}", data / f"once{suffix}", **options)
        with monkeypatch.context() as patch:
            patch.setattr("normcli.api.capacity.ThreadScheduler", Twice)
            twice = normcli.apply(data / f"x{suffix}", data / f"twice{suffix}", **options)
        assert (once.written_mean, once.tally) == (twice.written_mean, twice.tally)
    assert (data / "once.npy").read_bytes() == (data / "twice.npy").read_bytes()
    stores = [zarr.open_array(data / f"{n}.zarr", mode="r")[...] for n in ("once", "twice")]
    assert stores[0].tobytes() == stores[1].tobytes()


@pytest.mark.slow
def test_a_killed_client_does_not_keep_the_cluster_busy(data, tmp_path):
    with cluster(tmp_path / "cluster", 1, SLOW="0.2") as made:
        client = start(data, made)
        wait_for_journal(data)
        client.kill()
        client.communicate(timeout=20)
        fitted = normcli.fit(data / "x.npy", scheduler_file=str(made.file), **OPTIONS)
        assert fitted.count.sum() == X.size
    assert not (data / "y.npy").exists()
