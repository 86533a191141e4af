"""The N-th operation on the output fails, for N = 1, 2, 3 ... until nothing fails any more."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.commands import CHANGES, FORMATS, apply_command
from tests.faults.forked import Forked, Forks
from tests.faults.outcomes import hidden, outcome, partly

# Names of errors, and the operations that meet them.
ERRORS = {
    "EIO": f"{CHANGES},open",
    "ENOSPC": "write,fsync,mkdir,ftruncate,fallocate,close,open,rename",
    "EDQUOT": "write,mkdir,ftruncate,fallocate,close,open",
    "EFBIG": "write,ftruncate,fallocate",
}

# Every operation fails by EIO. A full disk ends in the same places by another number, which every
# second of them shows, and a quota or the largest size of a file likewise.
STRIDES = {"ENOSPC": 2, "EDQUOT": 8, "EFBIG": 8}


def failing(
    forks: Forks, folder: Path, command, whole, name: str, number: int, persist: bool
) -> bool:
    """Let the N-th operation fail, then go on without faults; return whether there was one."""
    faults = {"persist": 1} if persist else {}
    failed = forks.run(
        *command,
        cwd=folder,
        at=number,
        errno=getattr(errno, name),
        ops=ERRORS[name],
        match=str(folder),
        **faults,
    )
    expected = whole(command)
    where = (name, number, persist, failed.hits[:3], failed.code, failed.err)
    left = outcome(folder, "y")
    if failed.code == 0:
        assert left == expected, where
        if not failed.hits:
            assert hidden(folder) == [], where
    else:
        assert_told(failed)
        assert partly(left, expected), where
    ended = forks.run(*command, cwd=folder)
    complete = f"y{Path(command[3]).suffix} exists" in ended.err and left == expected
    assert ended.code == 0 or complete, (where, ended.code, ended.err)
    assert outcome(folder, "y") == expected, where
    assert ended.code or hidden(folder) == [], where
    return bool(failed.hits)


def assert_told(failed: Forked) -> None:
    """Assert one line with the code of a failed output, and no death."""
    errors = [line for line in failed.err.splitlines() if line.startswith("normcli: error: ")]
    assert failed.code == 5, (failed.hits[:3], failed.code, failed.err)
    assert len(errors) == 1, (failed.hits[:3], failed.err)
    assert "Traceback" not in failed.err, failed.err


def sweep(
    forks: Forks, tmp_path, command, whole, figures, name: str, numbers: Iterable[int]
) -> int:
    """Let each of these operations fail once, and once it and all after it; return how many."""
    hit = 0
    for number in numbers:
        found = []
        for persist in (False, True):
            folder = tmp_path / f"{number}{persist}"
            folder.mkdir()
            figures.count("R2", errors=1)
            found.append(failing(forks, folder, command, whole, name, number, persist))
            figures.count("R2", sound=1)
            shutil.rmtree(folder)
        if not any(found):
            break
        hit += 1
    return hit


@pytest.mark.parametrize(
    ("name", "number"), [("x.npy", 4), ("x.npy", 15), ("x.h5", 9), ("x.zarr", 22)]
)
def test_some_operations(forks: Forks, inputs, tmp_path, whole, figures, name, number):
    command = apply_command(inputs, name)
    assert sweep(forks, tmp_path, command, whole, figures, "ENOSPC", [number])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_operation(forks: Forks, inputs, tmp_path, whole, figures, name, error):
    command = apply_command(inputs, name)
    numbers = itertools.count(1, STRIDES.get(error, 1))
    counted = sweep(forks, tmp_path, command, whole, figures, error, numbers)
    assert counted > (5 if error == "EFBIG" else 20) // STRIDES.get(error, 1)


def repeated(forks: Forks, folder: Path, command, expected, number: int) -> bool:
    """Let a signal interrupt the N-th operation; return whether there was one."""
    folder.mkdir()
    ended = forks.run(
        *command, cwd=folder, at=number, errno=errno.EINTR, ops="write,read,fsync", match="/"
    )
    assert ended.code == 0, (number, ended.hits, ended.err)
    assert outcome(folder, "y") == expected, (number, ended.hits)
    shutil.rmtree(folder)
    return bool(ended.hits)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_interrupted_operations_are_repeated(forks: Forks, inputs, tmp_path, whole, figures, name):
    """Reads, writes and syncs of input and output alike."""
    command = apply_command(inputs, name)
    for number in itertools.count(1):
        if not repeated(forks, tmp_path / str(number), command, whole(command), number):
            break
        figures.count("R2", errors=1, sound=1)
    assert number > 20
