"""Limits of a process, and surroundings that lack what most have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import NORMCLI, environment, shell
from tests.examples import pairs
from tests.faults.commands import FORMATS, apply_command
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome, partly


@pytest.mark.parametrize("name", FORMATS)
def test_few_open_files(forks: Forks, inputs, tmp_path, whole, name):
    command = apply_command(inputs, name)
    ended = forks.run(*command, cwd=tmp_path, limits={"NOFILE": 64})
    assert ended.code == 0, ended.err
    assert outcome(tmp_path, "y") == whole(command)


@pytest.mark.parametrize("name", ["x.npy", "x.zarr"])
def test_hardly_any_open_files(forks: Forks, inputs, tmp_path, whole, name):
    """At some number nothing works any more; above it all does, and between there are errors."""
    command = apply_command(inputs, name)
    expected = whole(command)
    codes = []
    for limit in (4, 11, 18, 25):
        folder = tmp_path / str(limit)
        folder.mkdir()
        ended = forks.run(*command, cwd=folder, limits={"NOFILE": limit})
        assert ended.code in (0, 3, 5), (limit, ended.code, ended.err)
        # asyncio tells of a loop that it could not make in words of its own.
        assert "Traceback" not in ended.err.split("Exception ignored in")[0]
        if ended.code:
            assert ended.err.count("normcli: error: ") == 1
            assert "Too many open files" in ended.err, (limit, ended.err)
        assert partly(outcome(folder, "y"), expected)
        assert forks.run(*command, cwd=folder).code in (0, 2)
        assert outcome(folder, "y") == expected
        codes.append(ended.code)
    assert codes[0]
    assert not codes[-1]


@pytest.mark.parametrize(
    ("limit", "name"),
    pairs([100, 9000, 60_000], ["x.npy", "plain.h5", "x.h5", "x.zarr", "sharded.zarr"]),
)
def test_files_may_not_grow(forks: Forks, inputs, tmp_path, whole, name, limit):
    """Without a handler the kernel would end the process by SIGXFSZ."""
    command = apply_command(inputs, name)
    ended = forks.run(*command, cwd=tmp_path, limits={"FSIZE": limit})
    if ended.code:
        assert ended.code == 5, ended.err
        assert "Traceback" not in ended.err
    assert partly(outcome(tmp_path, "y"), whole(command))
    assert forks.run(*command, cwd=tmp_path).code in (0, 2)
    assert outcome(tmp_path, "y") == whole(command)
    assert hidden(tmp_path) == []


def test_no_more_time(forks: Forks, inputs, tmp_path):
    """A limit of CPU time ends a run as a signal does."""
    np.save(tmp_path / "in.npy", np.zeros((4000, 2000), np.float32))
    command = ["apply", "in.npy", "-o", "y.npy", "--layout", "NC", "--memory", "5MiB"]
    ended = forks.run(*command, "--mode", "layer", cwd=tmp_path, limits={"CPU": 1}, delay=0)
    assert ended.code in (0, 152), ended.err
    if ended.code:
        assert "stopped by SIGXCPU" in ended.err
        assert not (tmp_path / "y.npy").exists()


BURNING = """
import resource
from normcli.cli.running import run_command
from normcli.cli.screen import Screen

def burn():
    while True:
        pass

resource.setrlimit(resource.RLIMIT_CPU, (6, 6))
run_command(Screen(), False, burn)
"""


def test_a_hard_limit_of_time_leaves_time_to_end():
    """``ulimit -t`` sets both limits, and the kernel kills at the hard one without a word."""
    done = subprocess.run([sys.executable, "-c", BURNING], capture_output=True, timeout=120)
    assert done.returncode == 152, done.stderr
    assert b"stopped by SIGXCPU" in done.stderr


WAITING = """
import resource, signal, sys, threading
from normcli.cli.running import run_command
from normcli.cli.screen import Screen
from normcli.process_limits import address_space

def wait():
    limits = address_space(), resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, limits)
    try:
        try:
            threading.Thread(target=print).start()
        except RuntimeError as error:
            print(error, flush=True)
        threading.Event().wait()
    finally:
        threading.Event().wait()

run_command(Screen(), False, wait)
"""


def test_a_signal_ends_what_has_no_memory_for_threads(figures):
    """Not even the one that would watch over a clean end, while another never begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"can't start new thread\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=20)[1].decode()
    figures.most("R8", hanging_storage_signal_to_end_s=time.monotonic() - begin)
    assert process.returncode == 143, told
    assert "stopped by SIGTERM, without waiting for what was in flight" in told


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_no_more_memory(inputs, tmp_path, whole, name):
    """Between too little to begin and enough, there is one line or the output."""
    command = apply_command(inputs, name)
    expected = whole(command)
    codes = []
    # Below 256 MiB the imports fail already.
    for mib in (*range(256, 640, 32), 1400):
        folder = tmp_path / str(mib)
        folder.mkdir()
        script = f"ulimit -v {mib * 1024}; exec $N {' '.join(command)}"
        ended = shell(script, folder, OPENBLAS_NUM_THREADS="1")
        codes.append(ended.code)
        assert ended.code in (0, 3, 5), (mib, ended.code, ended.err)
        assert partly(outcome(folder, "y"), expected)
        if ended.code == 0:
            assert outcome(folder, "y") == expected
    assert not codes[-1]


SURROUNDINGS = {
    "read-only home": {"HOME": "/proc"},
    "no home": {"HOME": ""},
    "no folder for temporary files": {"TMPDIR": "/proc"},
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    "narrow": {"COLUMNS": "1", "TERM": "dumb"},
    "far": {"TZ": "Pacific/Kiritimati"},
}
# In the fast cut, all that do not exclude each other come together.
SURROUNDINGS["all"] = {
    k: v for n, more in SURROUNDINGS.items() if n != "no home" for k, v in more.items()
}


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(name, marks=[] if name in ("no home", "all") else [pytest.mark.slow])
        for name in SURROUNDINGS
    ],
)
def test_surroundings(inputs, tmp_path, whole, where):
    command = apply_command(inputs, "x.zarr", "--mode", "instance")
    done = subprocess.run(
        [NORMCLI, *command],
        cwd=tmp_path,
        env=environment(**SURROUNDINGS[where]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stderr
    assert outcome(tmp_path, "y") == whole(command)


@pytest.mark.parametrize("when", [0, 4_000_000_000])
def test_the_time_of_an_input_says_nothing(forks: Forks, inputs, tmp_path, when):
    """What is continued is known by its content; neither 1970 nor the future matter."""
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy"))
    os.utime(tmp_path / "in.npy", (when, when))
    command = ["apply", "in.npy", "-o", "y.npy", "--memory", "4116KiB"]
    faulty = forks.run(*command, cwd=tmp_path, at=3, signal=9, match="journal", ops="write")
    assert faulty.code == -signal.SIGKILL
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "continuing: " in ended.err


def test_stopped_and_going_on(forks: Forks, inputs, tmp_path, whole):
    """A run that the batch system suspends goes on as if nothing had been."""
    command = apply_command(inputs, "x.npy")
    process = subprocess.Popen([NORMCLI, *command], cwd=tmp_path, stderr=subprocess.PIPE)
    owner = Path(tmp_path, ".y.npy.normcli-work", "owner.json")
    while not owner.exists():  # which is written by who has the lock
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    second = forks.run(*command, cwd=tmp_path)
    assert second.code == 6, second.err
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0
    assert process.communicate()
    assert outcome(tmp_path, "y") == whole(command)
