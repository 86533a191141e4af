"""A run that is killed, at whatever moment, is continued by the same command to the same bits."""

from __future__ import annotations

import itertools
import shutil
import signal

import pytest

from tests.faults.commands import CHANGES, FORMATS, apply_command
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome, partly

# The fast suite kills at a few of these; the slow one at every operation.
SOME = {"x.npy": (3, 17), "x.h5": (9, 21), "x.zarr": (2, 13, 26), "sharded.zarr": (8, 19)}


def killed_then_continued(forks, folder, command, whole, number) -> bool:
    """Kill a run at its N-th operation; return whether there was such an operation."""
    faulty = forks.run(*command, cwd=folder, at=number, signal=9, match=str(folder), ops=CHANGES)
    if not faulty.hits:
        assert faulty.code == 0, faulty.err
        assert outcome(folder, "y") == whole(command)
        return False
    assert faulty.code == -signal.SIGKILL
    assert partly(outcome(folder, "y"), whole(command)), faulty.hits
    ended = forks.run(*command, cwd=folder)
    assert ended.code == 0, (faulty.hits, ended.err)
    assert outcome(folder, "y") == whole(command), faulty.hits
    assert hidden(folder) == [], faulty.hits
    return True


@pytest.mark.parametrize("name", SOME)
def test_killed_at_some_operations(forks: Forks, inputs, tmp_path, whole, figures, name):
    for number in SOME[name]:
        folder = tmp_path / str(number)
        folder.mkdir()
        figures.count("R1", kills=1)
        assert killed_then_continued(forks, folder, apply_command(inputs, name), whole, number)
        figures.count("R1", identical=1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "instance"])
@pytest.mark.parametrize("name", FORMATS)
def test_killed_at_every_operation(forks: Forks, inputs, tmp_path, whole, figures, name, mode):
    command = apply_command(inputs, name, "--mode", mode)
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        if not killed_then_continued(forks, folder, command, whole, number):
            break
        figures.count("R1", kills=1, identical=1)
        shutil.rmtree(folder)
    assert number > 20


@pytest.mark.parametrize("number", range(1, 4))
def test_killed_between_the_names(forks: Forks, inputs, tmp_path, whole, number):
    """An earlier output stays with its sidecar, or has none, until the new pair is there."""
    command = apply_command(inputs, "x.zarr", "--overwrite")
    earlier = forks.run(*command, "--epsilon", "0.5", cwd=tmp_path)
    assert earlier.code == 0
    before = outcome(tmp_path, "y")
    faulty = forks.run(*command, cwd=tmp_path, at=number, signal=9, match="/y.zarr", ops="rename")
    assert faulty.code == -9, faulty.err
    left = outcome(tmp_path, "y")
    new = whole(apply_command(inputs, "x.zarr"))
    assert all(left[p] == before[p] for p in left) or all(left[p] == new[p] for p in left)
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "was complete but for its name" in ended.err
    assert outcome(tmp_path, "y") == new
    assert hidden(tmp_path) == []
