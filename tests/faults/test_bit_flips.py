"""One bit of what a run left changes: `verify` finds it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from normcli.api.options import RunOptions
from normcli.api.verifying import verify_output
from normcli.engine.events import Observer
from tests.faults.commands import FORMATS, apply_command
from tests.faults.forked import Forks


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


@pytest.mark.parametrize("name", FORMATS)
def test_what_apply_wrote(forks: Forks, inputs, tmp_path, figures, name):
    assert forks.run(*apply_command(inputs, name), cwd=tmp_path).code == 0
    output = tmp_path / f"y{Path(name).suffix}"
    paths = [Path(f, n) for f, _, names in os.walk(output) for n in names] or [output]
    rng = np.random.default_rng(3)
    for path in rng.choice(np.array(sorted(paths)), 4):
        bit = int(rng.integers(8 * path.stat().st_size))
        flip(path, bit)
        figures.count("R3", flips=1)
        found = verify_output(str(output), RunOptions(), Observer())
        assert len(found.damage) == 1, (path, bit, found.damage)
        assert str(path) in found.damage[0]
        figures.count("R3", found_and_named=1)
        flip(path, bit)
    assert verify_output(str(output), RunOptions(), Observer()).sound
    ended = forks.run("verify", output.name, cwd=tmp_path)
    assert ended.code == 0, ended.err
    flip(path, bit)
    ended = forks.run("verify", output.name, cwd=tmp_path)
    assert ended.code == 7, ended.err
