"""Runs killed at random times, again and again, until one of them comes to its end."""

from __future__ import annotations

import shutil
import signal

import numpy as np
import pytest

from tests.faults.commands import FORMATS, apply_command, fit_command, with_workers
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome, partly

# So slow are writes and reads that a run lasts for several lines of its journal.
SLOWLY = {"delay": 15000, "ops": "write,read", "match": "draft"}
KILLS = 18


def storm(forks: Forks, tmp_path, command, whole, figures, workers: int = 1) -> None:
    """Kill runs of a command until `KILLS` have died; each that survives ends as if alone."""
    expected = whole(command)
    rng = np.random.default_rng(len(" ".join(command)))
    longest = 0.5
    died = attempt = 0
    while died < KILLS:
        folder = tmp_path / str(attempt)
        folder.mkdir()
        attempt += 1
        line = command
        for _ in range(4):
            ended = forks.run(
                *line, cwd=folder, send=signal.SIGKILL, after=rng.uniform(0.02, longest), **SLOWLY
            )
            if ended.code == 0:
                longest = ended.seconds
                break
            if ended.code == 2 and outcome(folder, "y") == expected:
                break  # The killed run had done all, and says so by what exists.
            assert ended.code == -signal.SIGKILL, ended.err
            died += 1
            figures.count("R1", kills=1)
            left = outcome(folder, "y")
            assert partly(left, expected)
            if left == expected and hidden(folder) == []:
                break  # All was done but the end of the process.
            # Once a plan is there, its small blocks are kept for more workers and memory.
            planned = any(journal.stat().st_size for journal in folder.glob(".y.*/journal"))
            line = with_workers(command, workers) if planned else command
        else:
            ended = forks.run(*line, cwd=folder)
            assert ended.code == 0 or outcome(folder, "y") == expected, ended.err
        assert outcome(folder, "y") == expected
        assert hidden(folder) == []
        shutil.rmtree(folder)
    figures.count("R1", identical=died)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", ["batch", "instance"])
@pytest.mark.parametrize("name", FORMATS)
def test_apply(forks: Forks, inputs, tmp_path, whole, figures, name, mode, workers):
    command = apply_command(inputs, name, "--mode", mode)
    storm(forks, tmp_path, command, whole, figures, workers)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_fit(forks: Forks, inputs, tmp_path, whole, figures, name):
    storm(forks, tmp_path, fit_command(inputs, name), whole, figures)
