"""Runs over data that float64 does not hold, killed and continued to the same bits."""

from __future__ import annotations

import shutil
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.examples import steps
from tests.faults.commands import CHANGES, SHAPE
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome

RANDOM = np.random.default_rng(9)
# Room for several blocks of each.
BUDGET = ("--memory", "4200KiB", "--layout", "NCHW", "--epsilon", "0")
WIDE = {
    "integers": lambda: 17 * 10**17 + RANDOM.integers(0, 1000, SHAPE),
    "large": lambda: RANDOM.integers(-1000, 1000, SHAPE) * 1e303,
    "small": lambda: RANDOM.integers(-1000, 1000, SHAPE) * 5e-324,
}
COMMANDS = {
    "fit": ("fit", "x.npy", "-o", "y.json", *BUDGET),
    "fit of a part": ("fit", "x.npy", "-o", "y.json", "--part", "1/2", *BUDGET),
    "fit of observations": ("fit", "x.npy", "-o", "y.json", "--mode", "instance", *BUDGET),
    "fit of batches": ("fit", "x.npy", "-o", "y.json", "--momentum", "0.3", "--batch-size", "7",
                       *BUDGET),
    "fit of extremes": ("fit", "x.npy", "-o", "y.json", "--method", "minmax", *BUDGET[:-2]),
    "apply": ("apply", "x.npy", "-o", "y.npy", *BUDGET),
    "apply to observations": ("apply", "x.npy", "-o", "y.npy", "--mode", "group", "--groups", "3",
                              *BUDGET),
}  # fmt: skip


@pytest.mark.parametrize("number", [4, 9, 14, 19])
def test_a_killed_learn_keeps_targets_beyond_2_53(forks: Forks, tmp_path: Path, number: int):
    x = np.random.default_rng(5).integers(0, 1000, (1100, 300))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", 17 * 10**17 + 3 * x)
    command = ("learn", "x.npy", "t.npy", "-o", "y.json", "--layout", "NC", "--epsilon", "0")
    faulty = forks.run(
        *command, cwd=tmp_path, at=number, signal=9, match=str(tmp_path), ops=CHANGES
    )
    assert faulty.code == -signal.SIGKILL
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0, ended.err
    scale = np.array(outcome(tmp_path, "y")["y.json"]["arrays"]["scale"]["data"])
    np.testing.assert_allclose(scale, 3 * x.std(0), rtol=1e-12)


def center_of(values: np.ndarray) -> tuple[Fraction, Fraction]:
    """Return mean and variance by rational numbers alone."""
    known = [Fraction(value) for value in values.ravel().tolist()]
    mean = sum(known) / len(known)
    return mean, sum((v - mean) ** 2 for v in known) / len(known)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", WIDE)
def test_killed_at_some_operations(forks: Forks, tmp_path: Path, kind: str, command: str):
    x = WIDE[kind]()
    first = tmp_path / "whole"
    first.mkdir()
    np.save(first / "x.npy", x)
    ended = forks.run(*COMMANDS[command], cwd=first)
    assert ended.code == 0, ended.err
    whole = outcome(first, "y")
    continued = 0
    for number in range(3, 200, 5 * steps(3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.npy").hardlink_to(first / "x.npy")
        faulty = forks.run(
            *COMMANDS[command], cwd=folder, at=number, signal=9, match=str(folder), ops=CHANGES
        )
        if not faulty.hits:
            break
        assert faulty.code == -signal.SIGKILL
        left = outcome(folder, "y")
        ended = forks.run(*COMMANDS[command], cwd=folder)
        complete = _but_paths(left) == _but_paths(whole) and " exists." in ended.err
        assert ended.code == 0 or complete, (faulty.hits, ended.err)
        assert _but_paths(outcome(folder, "y")) == _but_paths(whole), faulty.hits
        assert hidden(folder) == []
        continued += "continuing: " in ended.err
        shutil.rmtree(folder)
    assert number > 6
    assert continued
    if command == "apply":
        y = np.load(first / "y.npy")
        for channel in range(SHAPE[1]):
            mean, variance = center_of(x[:, channel])
            for value, got in zip(x[:2, channel].ravel(), y[:2, channel].ravel(), strict=True):
                z = (Fraction(value.item()) - mean) ** 2 / variance
                assert abs(float(z) - float(got) ** 2) < 1e-13


def _but_paths(found):
    """Return an outcome without when and where an input was."""
    return {
        name: {k: v for k, v in held.items() if k != "source"} if isinstance(held, dict) else held
        for name, held in found.items()
    }
