"""Runs the real command line over a broken file and says what a user would get."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.cli.terminal import NORMCLI, Ended, call, drafts, environment, printable_only

SECRET = 4242.5

Build = Callable[[Path], str]


FIT = ("fit", "{}", "-o", "s.json")


@dataclass(frozen=True)
class Case:
    """A broken file: who makes it, the exit codes that fit, and words of the message.

    The command is given the name that `build` returns in place of ``{}``.
    """

    build: Build
    codes: tuple[int, ...]
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = FIT

    def line(self, name: str) -> list[str]:
        return [*(name if word == "{}" else word for word in self.command), *self.options]


# Linux counts the peak memory of a process from before its exec, so a small process starts it.
SMALL = """
import os, resource, subprocess, sys
used, memory, *command = sys.argv[1:]
if int(memory):
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
_, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
with open(used, "w") as file:
    file.write(f"{status} {usage.ru_maxrss}")
"""


def case(
    build: Build,
    code: int | tuple[int, ...],
    *words: str,
    options: tuple[str, ...] = (),
    command: tuple[str, ...] = FIT,
):
    codes = code if isinstance(code, tuple) else (code,)
    return Case(build, codes, words, options, command)


def require_refused(folder: Path, given: Case, monkeypatch) -> Ended:
    """Fit the file that a case builds, and require one clean line and nothing left behind."""
    monkeypatch.chdir(folder)
    name = given.build(folder)
    ended = call(*given.line(name))
    require_told(ended, given)
    assert [path.name for path in folder.glob("[sy].*")] == []
    assert drafts(folder) == []
    return ended


def require_told(ended: Ended, given: Case) -> None:
    assert ended.code in given.codes, ended
    errors = [line for line in ended.err.splitlines() if line.startswith("normcli: error: ")]
    assert len(errors) == 1, ended.err
    assert "Traceback" not in ended.err
    assert printable_only(ended.err)
    assert ended.out == b""
    for word in given.words:
        assert word in ended.err, (word, ended.err)


def limited(
    *arguments: object,
    cwd: Path,
    memory: int | None = None,
    seconds: float = 60,
    under: tuple[str, ...] = (),
    **env: str,
) -> tuple[Ended, float, int]:
    """Run a process; return how it ended, after how many seconds, and its peak memory in bytes."""

    with open(cwd / ".out", "wb+") as out, open(cwd / ".err", "wb+") as err:
        begin = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", SMALL, str(cwd / ".used"), str(memory or 0)),
                *(*under, str(NORMCLI), *map(str, arguments)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=environment(**env),
            start_new_session=True,
        )
        while process.poll() is None:
            if time.monotonic() - begin > seconds:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError("it hangs")
            time.sleep(0.01)
        took = time.monotonic() - begin
        status, peak = map(int, (cwd / ".used").read_text().split())
        (cwd / ".used").unlink()
        out.seek(0)
        err.seek(0)
        code = os.waitstatus_to_exitcode(status)
        ended = Ended(code, out.read(), err.read().decode())
    return ended, took, peak * 1024


def statistics(path: Path) -> dict:
    """Return a JSON sidecar."""
    return json.loads(path.read_text())


def pooled(path: Path) -> tuple[float, float, int]:
    """Return mean, variance and count over all groups of a JSON sidecar."""
    arrays = statistics(path)["arrays"]
    count = np.asarray(arrays["count"]["data"], np.int64).reshape(-1)
    mean = np.asarray(arrays["mean"]["data"], float).reshape(-1)
    m2 = np.asarray(arrays["m2"]["data"], float).reshape(-1)
    total = int(count.sum())
    center = float((count * mean).sum() / total)
    return center, float((m2 + count * (mean - center) ** 2).sum() / total), total
