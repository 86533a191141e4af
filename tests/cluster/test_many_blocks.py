"""What the engine costs by itself, whatever is measured: blocks of one element each."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block, Grid
from normcli.domain.moments import Moments
from normcli.engine.cluster import ClusterScheduler
from normcli.engine.collectors import HeldMoments
from normcli.engine.events import Observer
from normcli.engine.journal import Journal
from normcli.engine.run import Runner
from normcli.engine.schedulers import ThreadScheduler
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.planning.plan import Pass, Plan

MIB = 1 << 20


class Counting:
    """An array of n elements, of which element i is i; nothing is read."""

    name = "counting"

    def __init__(self, n: int) -> None:
        self.info = ArrayInfo((n,), np.dtype("f8"))

    def read(self, block: Block, buffer: Any = None) -> np.ndarray:
        return np.arange(block.start[0], block.stop[0], dtype="f8")

    def stored_parts(self, block: Block) -> None:
        return None


def walk_through(blocks: int, folder: Path, scheduler: Any, observed: Any) -> dict[str, float]:
    """Measure that many blocks, with a journal; return what it took."""
    grid = Grid((blocks,), (1,))
    work = Pass("measure", grid, 1000, 8 * blocks, 0, "a block is an element")
    plan = Plan((work,), 2, 1 << 30, 0, "numpy", "one pass")
    geometry = Geometry((blocks,), (), (), (blocks,))
    job = MeasureJob(Counting(blocks), geometry, Walk(grid), "numpy")
    held = HeldMoments(())
    journal = Journal(folder / f"journal-{blocks}", {}, lambda error: error)
    journal.begin(plan, lambda done: None)
    before, begin, cpu = observed(), time.perf_counter(), time.process_time()
    Runner(plan, scheduler, Observer(), journal).measure(work, job, held)
    journal.close()
    took = {
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
        "grown": observed() - before,
        "journal": (folder / f"journal-{blocks}").stat().st_size,
    }
    moments = held.moments
    assert int(moments.count) == blocks
    assert float(moments.mean) == pytest.approx((blocks - 1) / 2, rel=1e-12)
    assert float(moments.m2) == pytest.approx(blocks * (blocks**2 - 1) / 12, rel=1e-9)
    return took


class OneElement:
    """Stands for the kernels, of which a call for one element costs three times the engine."""

    def measure(self, values: np.ndarray, geometry: Geometry, start: tuple[int, ...]) -> Moments:
        x = values.reshape(())
        zero = np.zeros((), np.int64)
        return Moments(zero + 1, x, np.zeros(()), x, x, zero)


def resident(*pids: int) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_blocks_on_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("normcli.engine.tasks.kernels", lambda name: OneElement())
    walk_through(5_000, tmp_path, ThreadScheduler(2), lambda: 0)
    took = walk_through(1_000_000, tmp_path, ThreadScheduler(2), lambda: resident(os.getpid()))
    print(took)
    assert took["cpu"] < 200e-6 * 1_000_000
    assert took["grown"] < 64 * MIB
    assert took["journal"] < 64 * MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_blocks_on_a_cluster(tmp_path):
    pytest.importorskip("distributed")
    from .processes import cluster

    root = str(Path(__file__).parents[2])
    with cluster(tmp_path / "cluster", 2, PYTHONPATH=root) as made:
        scheduler = ClusterScheduler(scheduler_file=str(made.file))
        assert made.scheduler is not None
        pids = (os.getpid(), made.scheduler.pid)
        master = psutil.Process(made.scheduler.pid)
        try:
            walk_through(5_000, tmp_path, scheduler, lambda: 0)
            before = sum(master.cpu_times()[:2])
            took = walk_through(100_000, tmp_path, scheduler, lambda: resident(*pids))
            took["scheduler"] = sum(master.cpu_times()[:2]) - before
        finally:
            scheduler.close()
    print(took)
    # The workers measured; this is what client and scheduler took.
    assert took["cpu"] + took["scheduler"] < 200e-6 * 100_000
    assert took["grown"] < 64 * MIB
