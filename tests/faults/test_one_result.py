"""Workers, processes, budgets and interruptions do not change a bit of what a run leaves."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normcli.arrays.opening import open_source
from normcli.bundles.formats import read_bundle
from normcli.domain.grid import Block
from tests.faults.commands import apply_command, fit_command, with_workers
from tests.faults.forked import ROOT, Forks
from tests.faults.outcomes import outcome

# The same values in other storage and other chunks.
CHUNKINGS = ("x.npy", "plain.h5", "x.h5", "x.zarr", "v2.zarr", "sharded.zarr")
WORKERS = (1, 2, 4)
# At which writes to the journal runs are killed before the one that ends: the plan is there, so
# that all of them work on the same blocks.
INTERRUPTIONS = ((2,), (3,), (4,), (2, 1), (3, 1))
BUDGETS = (0, 300, 4000)
# Writing down takes so long that blocks are done before each line of the journal.
SLOWLY = {"delay": 20000}


def digest(found: Any) -> str:
    """Return one text for everything that a run left."""
    total = hashlib.sha256()
    for name in sorted(found):
        value = found[name]
        total.update(name.encode())
        if isinstance(value, dict) and not name.endswith(".json"):
            total.update(digest(value).encode())
        else:
            total.update(value if isinstance(value, bytes) else repr(value).encode())
    return total.hexdigest()


def interrupted(
    forks: Forks, folder: Path, command: list[str], steps: Iterable[int], workers: int
) -> str:
    """Kill runs of a command at these steps, let one end with so many workers; return a digest."""
    folder.mkdir()
    for step in steps:
        killed = forks.run(*command, cwd=folder, at=step, signal=9, match="journal", ops="write")
        assert killed.code == -9, (step, killed.err)
    ended = forks.run(*with_workers(command, workers), cwd=folder)
    assert ended.code == 0, ended.err
    found = digest(outcome(folder, "y"))
    shutil.rmtree(folder)
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != "x.npy")) for n in CHUNKINGS],
)
def test_workers_and_interruptions(forks: Forks, inputs, tmp_path, whole, figures, name):
    command = apply_command(inputs, name)
    found = {digest(whole(command))}
    for number, (workers, steps) in enumerate(itertools.product(WORKERS, INTERRUPTIONS)):
        found.add(interrupted(forks, tmp_path / str(number), command, steps, workers))
        figures.count("R6", configurations=1)
    figures.most("R6", digests_a_case=len(found))
    assert len(found) == 1


@pytest.mark.parametrize("name", ["x.zarr", "sharded.zarr", "x.h5"])
def test_budgets(forks: Forks, inputs, tmp_path, figures, name):
    """Where chunks decide the blocks, a budget that they fit into changes nothing."""
    found = set()
    for more, make in itertools.product(BUDGETS, (apply_command, fit_command)):
        command = make(inputs, name, "--mode", "instance")
        command[command.index("--memory") + 1] = f"{8000 + more}KiB"
        folder = tmp_path / f"{more}{make.__name__}"
        folder.mkdir()
        assert forks.run(*command, cwd=folder).code == 0
        found.add((make.__name__, digest(outcome(folder, "y"))))
        figures.count("R6", configurations=1)
    figures.most("R6", digests_a_case=len(found) - 1)
    assert len(found) == 2


def left(folder: Path, command: list[str]) -> str:
    """Return the digest of values and statistics that a run left, whatever it stored them in."""
    source = open_source(str(folder / command[command.index("-o") + 1]))
    values = source.read(Block(0, (0,) * source.info.ndim, source.info.shape))
    source.close()
    (sidecar,) = folder.glob("y*.stats.json")
    arrays = {name: array.tobytes() for name, array in read_bundle(str(sidecar)).arrays.items()}
    return digest({"values": np.ascontiguousarray(values).tobytes(), **arrays})


def test_any_chunking(forks: Forks, inputs, tmp_path, figures):
    """Statistics and normalized values of the same data are the same, however they are stored."""
    found = set()
    for name in CHUNKINGS:
        folder = tmp_path / name
        folder.mkdir()
        command = apply_command(inputs, name)
        assert forks.run(*command, cwd=folder).code == 0
        found.add(left(folder, command))
        figures.count("R6", configurations=1)
    figures.most("R6", digests_a_case=len(found))
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_digest_of_all(forks: Forks, inputs, tmp_path, figures):
    """Chunkings, threads, processes and resume points, each with each."""
    pytest.importorskip("distributed")
    from tests.cluster.processes import cluster

    found: dict[str, list[tuple[Any, ...]]] = {}
    resumed = 0
    with cluster(tmp_path / "cluster", 2, PYTHONPATH=str(ROOT)) as made:
        for name, steps, who in itertools.product(
            CHUNKINGS, ((), (3,), (4, 1)), (1, 2, 4, "processes")
        ):
            folder = tmp_path / f"{name} {steps} {who}"
            folder.mkdir()
            command = apply_command(inputs, name)
            for step in steps:
                ended = forks.run(
                    *command, cwd=folder, at=step, signal=9, match="journal", ops="write", **SLOWLY
                )
                assert ended.code == -9, (step, ended.err)
            last = with_workers(command, who if isinstance(who, int) else 2)
            if who == "processes":
                last += ["--scheduler-file", str(made.file)]
            ended = forks.run(*last, cwd=folder)
            assert ended.code == 0, ended.err
            resumed += "continuing: " in ended.err
            found.setdefault(left(folder, command), []).append((name, steps, who))
            figures.count("R6", of_each_with_each=1)
            shutil.rmtree(folder)
    figures.most("R6", digests_of_each_with_each=len(found))
    assert len(found) == 1, found
    assert sum(map(len, found.values())) >= 50
    assert resumed == 2 * sum(map(len, found.values())) // 3
