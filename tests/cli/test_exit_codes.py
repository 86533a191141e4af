"""The exit codes are an API: each one by a real process, told in one line, nothing left behind.

Those of closed pipes and signals are in test_streams.py.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.terminal import NORMCLI, assert_told, call, drafts, environment, run, shell


def _sharp(folder: Path) -> None:
    """Make the inputs of the table below."""
    np.save("nan.npy", np.array([[1, np.nan], [2, 3.0]]))
    np.save("tiny.npy", np.random.default_rng(0).normal(size=(50, 2)) * 1e-6)
    with h5py.File("target.h5", "w") as file:
        file["x"] = np.full((3, 3), 4242.5)
    with h5py.File("link.h5", "w") as file:
        file["x"] = h5py.ExternalLink("target.h5", "/x")
    Path("text.npy").write_text("a,b\\n1,2\\n")


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ["apply", "x.npy", "-o", "y.npy", "--mode", "group"], ["--groups"]),
        pytest.param(
            *(2, ["apply", "x.npy", "-o", "y.npy", "--memory", "1KiB"], ["budget"]),
            marks=pytest.mark.slow,
        ),
        (2, ["apply", "x.npy", "-o", "y.npy", "--layuot", "NC"], ["--layuot", "--layout"]),
        (3, ["apply", "text.npy", "-o", "y.npy"], ["text.npy"]),
        (4, ["apply", "link.h5/x", "-o", "y.npy"], ["target.h5"]),
        (5, ["apply", "x.npy", "-o", "no/such/y.npy"], ["no/such"]),
        (7, ["apply", "nan.npy", "-o", "y.npy", "--nonfinite", "error"], ["1 NaN"]),
        pytest.param(
            *(7, ["apply", "tiny.npy", "-o", "y.npy"], ["epsilon", "--epsilon 0"]),
            marks=pytest.mark.slow,
        ),
        (8, ["apply", "x.npy", "missing.npy", "-o", "out"], ["missing.npy"]),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_the_table(folder: Path, code: int, arguments: list[str], words: list[str]):
    _sharp(folder)
    before = sorted(os.listdir(folder))
    ended = run(*arguments, "--no-progress", cwd=folder)
    assert_told(ended, code, *words, hint=code not in (3, 8))
    assert ended.out == b""
    assert drafts(folder) == []
    if code != 8:
        assert sorted(os.listdir(folder)) == before
    if code == 4:
        assert "4242.5" not in ended.err


def test_debug_shows_the_traceback_too(folder: Path):
    ended = run("fit", "missing.npy", "-o", "s.json", "--debug", cwd=folder)
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert "normcli: error: missing.npy does not exist." in ended.err


def test_a_bug_is_called_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("the \x1b[31mimpossible")

    monkeypatch.setattr("normcli.api.fitting.fit_arrays", broken)
    ended = call("fit", "x.npy", "--json")
    assert_told(ended, 1, "RuntimeError: the \\x1b[31mimpossible", "report")


@pytest.mark.parametrize(
    "error", [MemoryError(), SystemError("error return without exception set")], ids=repr
)
def test_memory_that_runs_out_is_a_failed_output(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def greedy(*_: object) -> None:
        raise error

    monkeypatch.setattr("normcli.api.fitting.fit_arrays", greedy)
    monkeypatch.setattr("normcli.cli.running.os.dup2", lambda *_: None)
    assert_told(call("fit", "x.npy", "--json"), 5, "--memory")


def test_no_scheduler_is_worth_another_try(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def timed_out(*_: object, **__: object) -> None:
        raise TimeoutError("Timed out")

    monkeypatch.setattr("distributed.Client", timed_out)
    ended = call("fit", "x.npy", "-o", "s.json", "--scheduler", "tcp://127.0.0.1:1")
    assert_told(ended, 6, "tcp://127.0.0.1:1", "dask scheduler")


@pytest.mark.parametrize("output", ["y.npy", "y.h5", "y.zarr"])
def test_a_full_disk_leaves_no_output(folder: Path, output: str):
    np.save("x.npy", np.random.default_rng(0).normal(size=(500, 1000)))
    script = f"ulimit -f 600; trap '' XFSZ; $N apply x.npy -o {output} -q --no-stats-out"
    ended = shell(script, folder)
    if output == "y.zarr" and ended.code == 0:
        pytest.skip("every chunk is below the limit of a file")
    assert_told(ended, 5, f"{output} could not be written: File too large", hint=False)
    # Blocks that were written are kept for the same command; `clean` knows them.
    assert {*os.listdir(folder)} <= {"x.npy", f".{output}.normcli-work"}
    assert call("clean", output).code == 0
    assert os.listdir(folder) == ["x.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(folder: Path):
    (folder / "locked").mkdir(mode=0o500)
    assert_told(run("apply", "x.npy", "-o", "locked/y.npy", cwd=folder), 5, "locked")


def test_ctrl_c_at_the_very_start(folder: Path):
    process = subprocess.Popen(
        [NORMCLI, "fit", "x.npy", "-o", "s.json"],
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(),
    )
    time.sleep(0.15)
    process.send_signal(2)
    _, told = process.communicate(timeout=20)
    # Before Python itself listens the signal kills; after that it is told; or all is done.
    assert process.returncode in (130, -2, 0, 1)
    if process.returncode == 130:
        assert b"stopped by SIGINT" in told
    assert drafts(folder) == []


def test_help_and_version_answer_at_once(folder: Path):
    for arguments in (["--version"], ["--help"], ["fit", "-h"]):
        seconds = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = run(*arguments, cwd=folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert (ended.code, ended.err) == (0, "")
            assert ended.out
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"normcli {' '.join(arguments)}: {min(seconds):.3f} s CPU")
        assert min(seconds) < 0.4


def test_help_imports_no_numpy():
    code = "import sys, normcli.cli.main; print([m for m in sys.modules if m in {'numpy', 'rich'}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_python_m_normcli_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "normcli", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("normcli ")
