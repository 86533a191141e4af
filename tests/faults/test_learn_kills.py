"""A learning run that is killed, at whatever moment, is continued to the same bits."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked import Forks
from tests.faults.outcomes import hidden

COMMAND = ("learn", "x.npy", "t.npy", "-o", "a.json", "--layout", "NC", "-j", "1")
OPERATIONS = "write,fsync,rename,unlink,ftruncate,mkdir,close"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with an input and a target of three blocks."""
    x = np.random.default_rng(5).integers(0, 200, (2200, 1000), np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", x // 2 + 7)
    return tmp_path


def taken(folder: Path) -> dict:
    """Return what was learned, without the time and the command, and take it away."""
    document = json.loads((folder / "a.json").read_text())
    (folder / "a.json").unlink()
    del document["provenance"]
    return document


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_some_operations(forks: Forks, work: Path, step: int):
    ended = forks.run(*COMMAND, cwd=work)
    assert ended.code == 0, ended.err
    whole = taken(work)
    continued = 0
    for number in itertools.count(2, step):
        faulty = forks.run(
            *COMMAND,
            cwd=work,
            at=number,
            signal=int(signal.SIGKILL),
            match=str(work),
            ops=OPERATIONS,
        )
        if not faulty.hits:
            assert taken(work) == whole
            break
        assert faulty.code == -signal.SIGKILL
        ended = forks.run(*COMMAND, cwd=work)
        if ended.code == 2:
            # It was killed while it tidied up: the output has its name and is complete.
            assert "a.json exists" in ended.err
            assert taken(work) == whole
            ended = forks.run(*COMMAND, cwd=work)
        assert ended.code == 0, (faulty.hits, ended.err)
        assert taken(work) == whole, faulty.hits
        assert hidden(work) == [], faulty.hits
        continued += "continuing" in ended.err or "complete but for its name" in ended.err
    assert number > 5
    assert continued > 1


def test_a_full_disk_leaves_nothing_half_written(forks: Forks, work: Path):
    for operation in ("write", "fsync", "rename"):
        faulty = forks.run(*COMMAND, cwd=work, at=1, errno=28, match=str(work), ops=operation)
        assert faulty.code == 5, faulty.err
        assert not (work / "a.json").exists()
        ended = forks.run(*COMMAND, cwd=work)
        assert ended.code == 0, ended.err
        taken(work)
        assert hidden(work) == []
