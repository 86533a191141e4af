"""Two runs write one output, and a reader looks on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import apply_command
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome
from tests.faults.shim import Shim


def at_once(forks: list[Forks], command: list[str], folder: Path, **faults: object) -> list[Any]:
    """Run one command in as many processes as there are, all at once."""
    ended: list[Any] = [None] * len(forks)

    def one(place: int) -> None:
        ended[place] = forks[place].run(*command, cwd=folder, **faults)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(forks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


@pytest.fixture(scope="module")
def pair(shim: Shim):
    with Forks(shim.library) as first, Forks(shim.library) as second:
        yield [first, second]


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("x.npy", 4),
        ("x.zarr", 2),
        *(pytest.param(n, 20, marks=pytest.mark.slow) for n in ("x.npy", "x.h5", "x.zarr")),
    ],
)
def test_one_wins_and_the_other_is_told(pair, inputs, tmp_path, whole, name, times):
    command = apply_command(inputs, name)
    held = 0
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        # Even at their quickest, runs last longer than it takes the slower one to begin.
        first, second = at_once(pair, command, folder, delay=5000, ops="write", match="draft")
        codes = sorted((first.code, second.code))
        assert codes in ([0, 6], [0, 2]), (first.err, second.err)
        loser = max(first, second, key=lambda ended: ended.code)
        if codes == [0, 6]:
            held += 1
            assert "is being written by another run: " in loser.err
            assert "process " in loser.err or "its owner is not known" in loser.err
        else:
            assert "exists" in loser.err
        assert outcome(folder, "y") == whole(command)
        assert hidden(folder) == []
    assert held


@pytest.mark.parametrize("name", ["x.npy", pytest.param("x.h5", marks=pytest.mark.slow)])
def test_a_reader_sees_the_old_or_the_new(forks: Forks, inputs, tmp_path, name):
    commands = [
        apply_command(inputs, name, "--overwrite", "--epsilon", epsilon) for epsilon in ("0.5", "2")
    ]
    output = tmp_path / f"y{Path(name).suffix}"
    assert forks.run(*commands[0], cwd=tmp_path).code == 0
    written = {output.read_bytes()}
    seen = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(output.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for turn in range(5):
            assert forks.run(*commands[(turn + 1) % 2], cwd=tmp_path).code == 0
            written.add(output.read_bytes())
    finally:
        stop.set()
        reader.join()
    assert len(written) == 2
    assert seen == written
