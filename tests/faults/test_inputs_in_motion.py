"""Inputs that change or fail while they are read."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli.bundles.statistics_file import read_statistics
from tests.examples import pairs, steps
from tests.faults.commands import FORMATS, apply_command, fit_command
from tests.faults.forked import Forked, Forks
from tests.faults.outcomes import hidden, outcome
from tests.faults.shim import Shim


def slow_run(shim: Shim, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a run that takes its time to read, and return when it reads."""
    inner = "/x" if name.endswith(".h5") else ""
    process = shim.popen(
        "apply",
        f"{name}{inner}",
        "-o",
        f"y{Path(name).suffix}",
        "--memory",
        "4116KiB",
        cwd=folder,
        delay=100_000,
        ops="read",
        match=f"{folder.name}/{name}",
    )
    work = folder / f".y{Path(name).suffix}.normcli-work" / "journal"
    while not work.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def with_input(inputs: Path, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes((inputs / name).read_bytes())
    return path


@pytest.mark.parametrize("name", ["x.npy", pytest.param("plain.h5", marks=pytest.mark.slow)])
def test_cut_while_it_is_read(shim: Shim, inputs, tmp_path, name):
    path = with_input(inputs, tmp_path, name)
    process = slow_run(shim, tmp_path, name)
    os.truncate(path, path.stat().st_size // 2)
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 3, told
    assert name in told
    assert outcome(tmp_path, "y") == {}
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["x.npy", pytest.param("plain.h5", marks=pytest.mark.slow)])
def test_replaced_while_it_is_read(shim: Shim, inputs, tmp_path, name):
    """Another file under its name leaves the one that is open as it was; its bytes in place not."""
    path = with_input(inputs, tmp_path, name)
    process = slow_run(shim, tmp_path, name)
    if name == "x.npy":
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size - 4000)
            file.write(bytes(4000))
    else:
        with h5py.File(path, "r+", locking=False) as file:
            file["x"][-2:] = 0
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 3, told
    assert "changed" in told
    assert outcome(tmp_path, "y") == {}


def failing_read(
    forks: Forks, inputs, folder: Path, whole, name: str, number: int, persist: bool
) -> Forked:
    """Let the N-th read of an input fail, then go on without faults; return what came of it."""
    command = fit_command(inputs, name)
    expected = whole(command)
    faults = {"persist": 1} if persist else {}
    folder.mkdir()
    failed = forks.run(
        *command,
        cwd=folder,
        at=number,
        errno=errno.EIO,
        ops="read,open" if persist else "read",
        match=str(inputs / name),
        **faults,
    )
    where = (name, number, persist, failed.hits[:3], failed.code, failed.err)
    assert failed.code in (0, 6), where
    assert bool(failed.code) or outcome(folder, "y") == expected, where
    if failed.code:
        assert name in failed.err, where
        assert os.strerror(errno.EIO) in failed.err, where
        assert failed.err.count("normcli: error: ") == 1, where
        assert "Traceback" not in failed.err, where
        assert outcome(folder, "y") == {}, where
        assert forks.run(*command, cwd=folder).code == 0, where
    assert outcome(folder, "y") == expected, where
    assert hidden(folder) == [], where
    shutil.rmtree(folder)
    return failed


@pytest.mark.parametrize(("name", "persist"), pairs(FORMATS, [False, True]))
def test_a_read_fails(forks: Forks, inputs, tmp_path, whole, figures, name, persist):
    """Read errors of storage end a run with one line that names the input."""
    for number in (2,) if persist else (1, 9):
        figures.count("R2", errors=1)
        failing_read(forks, inputs, tmp_path / str(number), whole, name, number, persist)
        figures.count("R2", sound=1)


@pytest.mark.parametrize("number", [1, 2, 5, 9, 13])
def test_a_read_that_fails_once_is_tried_again(forks: Forks, inputs, tmp_path, whole, number):
    """Reads of the header, of the fingerprint and of elements."""
    failed = failing_read(forks, inputs, tmp_path / "run", whole, "x.npy", number, False)
    assert failed.hits
    assert failed.code == 0, failed.err


@pytest.mark.parametrize(
    ("name", "number"), pairs(["x.h5", "plain.h5"], [6, 4, 8, 12, 16, 20, 24, 28])
)
def test_a_read_by_hdf5_that_fails_once_is_tried_again(
    forks: Forks, inputs, tmp_path, whole, name, number
):
    """In the trial, in what describes the dataset, in the index of its chunks."""
    failed = failing_read(forks, inputs, tmp_path / "run", whole, name, number, False)
    assert failed.hits
    assert failed.code == 0, failed.err


@pytest.mark.parametrize("persist", [False, True])
def test_names_of_axes_are_not_lost_to_a_failing_read(forks: Forks, tmp_path, persist):
    """Without them, the layout would be another, and so the statistics."""
    path = tmp_path / "named.h5"
    with h5py.File(path, "w", track_order=True) as file:
        dataset = file.create_dataset("x", data=np.arange(120.0).reshape(2, 3, 4, 5))
        for axis, label in zip(dataset.dims, ("N", "H", "W", "C"), strict=True):
            axis.label = label
    command = ["fit", str(path), "-o", "y.json", "-j", "1"]
    expected = forks.run(*command, cwd=tmp_path)
    assert "layout NHWC" in expected.err
    faults = {"persist": 1} if persist else {}
    for number in range(4, 40, 5 if persist else steps(5)):
        ended = forks.run(
            *(*command, "--overwrite"),
            cwd=tmp_path,
            at=number,
            errno=errno.EIO,
            ops="read",
            match=str(path),
            **faults,
        )
        assert ended.code in ((0, 6) if persist else (0,)), ended.err
        assert len(read_statistics(str(tmp_path / "y.json")).moments.mean) == 5, number
        if not ended.hits:
            break
    assert number > 20


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr"])
@pytest.mark.parametrize("number", [1, 6])
def test_storage_that_fails_for_good_may_work_later(
    forks: Forks, inputs, tmp_path, whole, name, number
):
    failed = failing_read(forks, inputs, tmp_path / "run", whole, name, number, True)
    assert failed.code == 6, failed.err


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("persist", [False, True])
def test_every_read_fails(forks: Forks, inputs, tmp_path, whole, figures, name, persist):
    """Once, each of them; for good, from each of them on, also the opening of the file again."""
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        failed = failing_read(forks, inputs, folder, whole, name, number, persist)
        if not failed.hits:
            break
        figures.count("R2", errors=1, sound=1)
    assert number > 10


@pytest.mark.parametrize("name", ["x.npy", "plain.h5", "x.h5", "x.zarr"])
def test_short_reads_are_continued(forks: Forks, inputs, tmp_path, whole, name):
    """A read may return less than was asked for at any time."""
    command = fit_command(inputs, name)
    for number in (1, 6):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = forks.run(
            *command, cwd=folder, at=number, short=1, ops="read", match=str(inputs / name)
        )
        assert ended.code == 0, (ended.hits, ended.err)
        assert outcome(folder, "y") == whole(command)


def test_short_writes_are_continued(forks: Forks, inputs, tmp_path, whole):
    command = apply_command(inputs, "x.npy")
    for number in (1, 4, 9, 14):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = forks.run(*command, cwd=folder, at=number, short=1, ops="write", match=str(folder))
        assert ended.code == 0, ended.err
        assert len(ended.hits) == 1
        assert outcome(folder, "y") == whole(command)
