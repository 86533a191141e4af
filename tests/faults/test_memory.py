"""A run that continues another stays inside the budget, too."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.harness import run_process
from tests.cli.terminal import NORMCLI, environment

# What the interpreter and the libraries take beside the budget.
BASE_MIB = 150
BUDGET_MIB = 32
SHAPES = {"batch": (600, 40, 24, 24), "instance": (3000, 64, 12, 6)}


def interrupt(command: tuple[str, ...], work: Path) -> None:
    """Kill a run when its journal has more than a head."""
    process = subprocess.Popen([NORMCLI, *command], env=environment(), stderr=subprocess.DEVNULL)
    journal = work / "journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()


@pytest.mark.parametrize("mode", SHAPES)
def test_while_continuing(tmp_path, figures, mode):
    """Instances have so many groups here that their journal holds much."""
    values = np.random.default_rng(2).normal(0, 1, SHAPES[mode]).astype(np.float32)
    source, output = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(source, values)
    command = ("apply", str(source), "-o", str(output), "--layout", "NCHW", "--mode", mode)
    command = (*command, "--memory", f"{BUDGET_MIB}MiB")
    fresh = run_process(*command).peak_mib
    output.unlink()
    interrupt((*command, "--overwrite"), tmp_path / ".y.npy.normcli-work")
    continued = run_process(*command, "--overwrite").peak_mib
    figures.most("R8", over_budget_mib=continued - BUDGET_MIB)
    assert continued <= BUDGET_MIB + BASE_MIB, (fresh, continued)
