"""A disk that is really full, at whatever size: an error, or a complete output."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import FORMATS, source
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome, partly

KIB = 1024
SIZE = 1024 * KIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a file system of 1 MiB, where one may be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def with_room(forks: Forks, disk: Path, command: list[str], room: int, expected) -> int:
    """Run where so many bytes are free, then where all are; return the first exit code."""
    (disk / "filler").write_bytes(bytes(SIZE - room))
    failed = forks.run(*command, cwd=disk)
    left = outcome(disk, "y")
    if failed.code:
        assert failed.code == 5, (room, failed.code, failed.err)
        assert failed.err.count("normcli: error: ") == 1, failed.err
        assert "Traceback" not in failed.err
        assert partly(left, expected), (room, failed.err)
    else:
        assert left == expected, room
    (disk / "filler").unlink()
    if failed.code or not left:
        ended = forks.run(*command, cwd=disk)
        assert ended.code == 0, (room, failed.err, ended.err)
    assert outcome(disk, "y") == expected, room
    assert hidden(disk) == [], room
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return failed.code


def disk_command(inputs: Path, name: str) -> list[str]:
    return ["apply", source(inputs, name), "-o", f"y{Path(name).suffix}", "--memory", "4240KiB"]


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "plain.h5", "x.zarr"])
def test_too_small(forks: Forks, inputs, disk, whole, name):
    command = disk_command(inputs, name)
    assert with_room(forks, disk, command, 60 * KIB, whole(command)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_size(forks: Forks, inputs, disk, whole, figures, name):
    command = disk_command(inputs, name)
    expected = whole(command)
    codes = []
    for room in range(0, 480 * KIB, 8 * KIB):
        figures.count("R2", errors=1)
        codes.append(with_room(forks, disk, command, room, expected))
        figures.count("R2", sound=1)
    assert codes[0] == 5
    assert codes[-1] == 0


def test_an_earlier_output_stays(forks: Forks, inputs, disk):
    command = [*disk_command(inputs, "x.h5"), "--overwrite"]
    assert forks.run(*command, "--epsilon", "0.5", cwd=disk).code == 0
    before = outcome(disk, "y")
    used = sum(path.stat().st_size for path in disk.iterdir()) + 64 * KIB
    (disk / "filler").write_bytes(bytes(SIZE - used))
    failed = forks.run(*command, cwd=disk)
    (disk / "filler").unlink()
    assert failed.code == 5, failed.err
    assert outcome(disk, "y") == before
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
