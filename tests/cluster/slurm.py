"""Plays SLURM on one machine: variables, job arrays, preemption, dead nodes, requeueing."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.terminal import environment

DOCS = Path(__file__).parents[2] / "docs" / "clusters.md"

# Blocks take so long that signals meet them, in every process that begins with this folder.
SLOW_BLOCKS = """
import os, time
from normcli.engine import tasks
check = tasks.check_stop
def slow():
    time.sleep(float(os.environ["SLOW"]))
    check()
tasks.check_stop = slow
"""

# As many copies as the job has tasks; gone with the first that fails, as `srun --kill-on-bad-exit`.
SRUN = """#!/bin/bash
for task in $(seq "$SLURM_NTASKS"); do
    SLURM_PROCID=$((task - 1)) "$@" &
done
wait
"""


def script(name: str, folder: Path) -> Path:
    """Write the job script that the documentation shows under a name."""
    found = re.search(
        rf"^<!-- job: {re.escape(name)} -->\n```bash\n(.*?)^```$",
        DOCS.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"docs/clusters.md shows no {name}"
    path = folder / name
    path.write_text(found[1])
    return path


@dataclass
class Task:
    """One job, or one task of an array; requeued it is started again."""

    path: Path
    folder: Path
    variables: dict[str, str]
    output: Path
    requeues: bool
    restarts: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, **more: str) -> None:
        env = environment(**{**self.variables, **more})
        if self.restarts:
            env["SLURM_RESTART_COUNT"] = str(self.restarts)
        with open(self.output, "ab") as log:  # --open-mode=append
            self.process = subprocess.Popen(
                ["bash", str(self.path)],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def preempt(self, grace: float = 30) -> int:
        """SIGCONT and SIGTERM to the batch process, SIGKILL to all after the grace time."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.lose_node()
            raise

    def lose_node(self) -> None:
        """The node dies with all that runs on it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def requeue(self, **more: str) -> None:
        assert self.requeues
        self.restarts += 1
        self.start(**more)

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(seconds)

    def text(self) -> str:
        return self.output.read_text()


class Slurm:
    """One machine that takes jobs.

    Parameters
    ----------
    folder : Path
        Where jobs are submitted, and write their output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids = itertools.count(4000)
        self._tasks: list[Task] = []
        self._bin = folder / ".bin"
        self._bin.mkdir()
        (self._bin / "sitecustomize.py").write_text(SLOW_BLOCKS)
        dask = f'#!/bin/sh\nexec "{sys.executable}" -m dask "$@"\n'
        for name, text in (("srun", SRUN), ("dask", dask)):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)

    def sbatch(self, name: str, array: str = "", slow: float = 0, **more: str) -> dict[int, Task]:
        """Submit a script of the documentation; return its tasks by their number in the array."""
        path = script(name, self.folder)
        options = _options(path.read_text())
        numbers = _numbers(array or options.get("array", ""))
        job = next(self._ids)
        variables = {
            "PATH": os.pathsep.join(
                [str(self._bin), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NAME": name,
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_NTASKS": options.get("ntasks", "1"),
            "SLURM_CPUS_PER_TASK": options.get("cpus-per-task", "1"),
            **more,
        }
        if "mem" in options:
            variables["SLURM_MEM_PER_NODE"] = str(1024 * int(options["mem"].removesuffix("G")))
        if slow:
            variables |= {"SLOW": str(slow), "PYTHONPATH": str(self._bin)}
        tasks = {}
        for number in numbers or [0]:
            own = {}
            if numbers:
                own = {
                    "SLURM_ARRAY_JOB_ID": str(job),
                    "SLURM_ARRAY_TASK_ID": str(number),
                    "SLURM_ARRAY_TASK_COUNT": str(len(numbers)),
                    "SLURM_ARRAY_TASK_MIN": str(min(numbers)),
                    "SLURM_ARRAY_TASK_MAX": str(max(numbers)),
                }
            output = self.folder / f"slurm-{job}_{number}.out"
            tasks[number] = Task(
                path, self.folder, {**variables, **own}, output, "requeue" in options
            )
            tasks[number].start()
        self._tasks += tasks.values()
        return tasks

    def close(self) -> None:
        """Leave nothing running."""
        for task in self._tasks:
            task.lose_node()


def begun(task: Task, output: str, lines: int = 2, seconds: float = 60) -> None:
    """Return when the journal of a task's output has so many lines."""
    journal = (task.folder / output).with_name(f".{Path(output).name}.normcli-work") / "journal"
    deadline = time.monotonic() + seconds
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
        assert task.process.poll() is None, f"it ended before it could be met: {task.text()}"
        assert time.monotonic() < deadline, "nothing was written down"
        time.sleep(0.02)


def _options(text: str) -> dict[str, str]:
    words = " ".join(
        line.removeprefix("#SBATCH") for line in text.splitlines() if "#SBATCH" in line
    )
    pairs = (word.removeprefix("--").partition("=") for word in words.split())
    return {name: value for name, _, value in pairs}


def _numbers(array: str) -> list[int]:
    """Return the numbers of ``1-4,7``."""
    found: list[int] = []
    for piece in filter(None, array.split(",")):
        low, _, high = piece.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found
