"""Signals: what is done is kept, and the process ends soon with the code that scripts expect."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.terminal import NORMCLI, environment
from tests.faults.commands import apply_command
from tests.faults.forked import Forks
from tests.faults.outcomes import outcome
from tests.faults.shim import Shim


def wait_for(journal: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a journal has so many lines."""
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None
        time.sleep(0.01)


def test_clean_leaves_a_running_run_alone(shim: Shim, forks: Forks, inputs, tmp_path):
    process = shim.popen(
        *apply_command(inputs, "x.npy"), cwd=tmp_path, delay=300000, ops="write", match="draft"
    )
    try:
        wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 0, process)
        cleaned = forks.run("clean", "y.npy", cwd=tmp_path)
        assert "left alone" in cleaned.out
        second = forks.run(*apply_command(inputs, "x.npy"), cwd=tmp_path)
        assert second.code == 6
        assert f"being written by another run: process {process.pid}" in second.err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGXCPU, 152)],
)
def test_a_signal_keeps_what_is_done(
    shim: Shim, forks: Forks, inputs, tmp_path, whole, figures, number, code
):
    command = apply_command(inputs, "x.npy")
    process = shim.popen(*command, cwd=tmp_path, delay=100000, ops="write", match="draft")
    wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 2, process)
    begin = time.monotonic()
    process.send_signal(number)
    told = process.communicate(timeout=20)[1].decode()
    figures.most("R8", signal_to_end_s=time.monotonic() - begin)
    assert process.returncode == code, told
    assert f"stopped by {number.name}" in told
    assert "are kept; the same command continues" in told
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "continuing: " in ended.err
    assert outcome(tmp_path, "y") == whole(apply_command(inputs, "x.npy"))


def test_a_second_signal_ends_at_once(shim: Shim, forks: Forks, inputs, tmp_path, whole, figures):
    """Even while a write does not come back; what was written down is enough."""
    command = apply_command(inputs, "x.npy")
    process = shim.popen(*command, cwd=tmp_path, delay=1_500_000, ops="write", match="draft")
    wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 1, process)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=20)[1].decode()
    # While the interpreter ends, Python has no handlers any more; a shell sees 130 either way.
    assert process.returncode in (130, -signal.SIGINT), told
    figures.most("R8", second_signal_to_end_s=time.monotonic() - begin)
    if process.returncode == 130:
        assert "stopped by SIGINT" in told
    assert outcome(tmp_path, "y") == {}
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert outcome(tmp_path, "y") == whole(command)


def test_storage_that_hangs_does_not_keep_a_run(shim: Shim, inputs, tmp_path, figures):
    """After 4 seconds a run that was asked to stop ends, whatever its writes do."""
    command = apply_command(inputs, "x.npy")
    process = shim.popen(*command, cwd=tmp_path, delay=30_000_000, ops="fsync", match="draft")
    wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 2, process)
    time.sleep(0.5)  # The thread of the journal is in its sync then.
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=20)[1].decode()
    figures.most("R8", hanging_storage_signal_to_end_s=time.monotonic() - begin)
    assert process.returncode == 143, told
    assert "stopped by SIGTERM, without waiting for what was in flight" in told


@pytest.mark.parametrize("twice", [False, True])
def test_a_reader_of_stderr_that_hangs_does_not_keep_a_run(shim: Shim, inputs, tmp_path, twice):
    """Nobody empties the pipe, so that the line of the end cannot be written."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    process = subprocess.Popen(
        [NORMCLI, *map(str, apply_command(inputs, "x.npy", "-q"))],
        cwd=tmp_path,
        stderr=writing,
        env=environment(
            LD_PRELOAD=str(shim.library), FI_OPS="fsync", FI_MATCH="draft", FI_DELAY="30000000"
        ),
    )
    wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 2, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    if twice:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (143, -signal.SIGTERM)
    os.close(reading)
    os.close(writing)


def test_usr1_tells_where_the_run_is_and_goes_on(shim: Shim, inputs, tmp_path):
    process = shim.popen(
        *apply_command(inputs, "x.npy", "-q"), cwd=tmp_path, delay=50000, ops="write", match="draft"
    )
    wait_for(tmp_path / ".y.npy.normcli-work" / "journal", 2, process)
    process.send_signal(signal.SIGUSR1)
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0
    assert "normcli: " in told
    assert " %" in told


def test_storage_that_is_slow_is_waited_for_and_told_of(shim: Shim, inputs, tmp_path, whole):
    """A write that takes long is no reason to end, and none to be silent."""
    command = apply_command(inputs, "x.npy")
    process = shim.popen(
        *(*command, "--progress"), cwd=tmp_path, delay=3_000_000, ops="fsync", match="draft"
    )
    told = process.communicate(timeout=110)[1].decode()
    assert process.returncode == 0, told
    assert "no block ended for " in told
    assert outcome(tmp_path, "y") == whole(command)
