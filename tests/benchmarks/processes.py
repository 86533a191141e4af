"""Whole processes: start-up, growth and overhead. Figures S1, G1, G2 and the help screen."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normcli.arrays.access import WholeSource
from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.engine.collectors import HeldMoments
from normcli.engine.events import Observer
from normcli.engine.run import Runner
from normcli.engine.schedulers import ThreadScheduler
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.planning.plan import Pass, Plan
from tests.benchmarks.harness import Row, Scale, limit_row, run_process


def rows(scale: Scale, tiny: bool) -> Iterator[Row]:
    """Yield the figures of processes; `tiny` shrinks what takes minutes."""
    yield from _start(scale)
    yield from _growth(scale, tiny)
    yield _overhead(2_000 if tiny else 1_000_000)


def _start(scale: Scale) -> Iterator[Row]:
    path = scale.folder / "small.npy"
    np.save(path, np.zeros((64, 4, 32, 32), np.float32) + np.arange(32, dtype=np.float32))
    runs = [run_process("--help").cpu for _ in range(scale.repeats)]
    yield limit_row("S0", "normcli --help, CPU", min(runs), "s", 0.2)
    fit = ("fit", str(path), "-o", str(scale.folder / "small.json"), "--overwrite", "-q")
    runs = [run_process(*fit).cpu for _ in range(scale.repeats)]
    yield limit_row("S1", "fit of a 1 MB NPY, whole process, CPU", min(runs), "s", 1.0)
    with tempfile.TemporaryDirectory() as cache:
        first = run_process(*fit, environment={"NUMBA_CACHE_DIR": cache}).cpu
    yield limit_row("S1", "the same, very first run after installation", first, "s", 2.5)


def _growth(scale: Scale, tiny: bool) -> Iterator[Row]:
    memory = 512
    unit = scale.nbytes if tiny else 1 << 30
    per_byte = []
    for factor in (1, 4, 16):
        path = scale.folder / "growing.npy"
        _make(path, factor * unit)
        fit = ("fit", str(path), "-o", str(scale.folder / "g.json"), "--overwrite", "-q")
        options = ("--layout", "NCHW", "--memory", f"{memory}MiB")
        repeats = 1 if tiny else 2
        runs = [run_process(*fit, *options) for _ in range(repeats)]
        best = min(runs, key=lambda used: used.wall)
        per_byte.append(best.wall / (factor * unit))
        work = f"peak memory of fit, {factor * unit >> 20} MiB, --memory {memory}MiB"
        yield limit_row("G1", work, best.peak_mib, "MiB", memory + 200)
        path.unlink()
    spread = per_byte[-1] / per_byte[1]
    yield limit_row("G1", "time a byte, 16 units over 4", spread, "", 1.1)


def _make(path: Path, nbytes: int) -> None:
    observations = nbytes // (8 * 64 * 64 * 4)
    header = ArrayInfo((observations, 8, 64, 64), np.dtype("f4"))
    piece = np.random.default_rng(0).standard_normal((16, 8, 64, 64), dtype=np.float32)
    with path.open("wb") as file:
        fields = {"descr": "<f4", "fortran_order": False, "shape": header.shape}
        np.lib.format.write_array_header_1_0(file, fields)
        for first in range(0, observations, 16):
            file.write(piece[: min(16, observations - first)].tobytes())


@dataclass(frozen=True)
class _Nothing(WholeSource):
    """A source whose blocks cost nothing to read: what is left is the engine."""

    name: str
    info: ArrayInfo

    def read(self, block, buffer=None):  # type: ignore[no-untyped-def]
        return _ONE

    def identity(self):  # type: ignore[no-untyped-def]
        return ()

    def close(self) -> None:
        pass


_ONE = np.zeros(1, np.float32)


def _overhead(blocks: int) -> Row:
    info = ArrayInfo((blocks,), np.dtype("f4"))
    grid = Grid((blocks,), (1,))
    work = Pass("measure", grid, 4, info.nbytes, 0, "one element a block")
    plan = Plan((work,), 1, 1 << 30, 0, "numba", "overhead")
    job = MeasureJob(
        _Nothing("nothing", info), Geometry((blocks,), (), (), (blocks,)), Walk(grid), "numba"
    )
    begin = time.process_time()
    Runner(plan, ThreadScheduler(1), Observer()).measure(work, job, HeldMoments(()))
    seconds = time.process_time() - begin
    return limit_row(
        "G2",
        f"engine and kernel call, {blocks} empty blocks, CPU a block",
        seconds / blocks * 1e6,
        "us",
        100,
    )
