"""How many threads of a run do work: those that --workers asks for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from normcli.kernels.select import SMALL

# Of the CPU time of the busiest thread: less is a thread of a library that starts, waits and ends
# (up to an eighth on a machine with other work); one that shares the work takes its part of it.
SHARE = 1 / 3
SIXTEEN = {"OMP_NUM_THREADS": "16", "NUMBA_NUM_THREADS": "16"}


def cpu_of_threads(process):
    """Return the ticks of CPU that each thread of a process takes until it ends, but the first."""
    used = {}
    tasks = Path(f"/proc/{process.pid}/task")
    while process.poll() is None:
        try:
            for task in tasks.iterdir():
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                used[task.name] = int(fields[11]) + int(fields[12])
        except OSError:
            pass  # It ended between the listing and the reading.
        time.sleep(0.005)
    used.pop(str(process.pid), None)
    return sorted(used.values(), reverse=True)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize(
    ("workers", "told"),
    [
        (1, {}),
        (2, SIXTEEN),
        pytest.param(2, {}, marks=pytest.mark.slow),
        pytest.param(1, SIXTEEN, marks=pytest.mark.slow),
    ],
)
def test_the_threads_of_libraries_do_not_multiply_with_the_workers(tmp_path, workers, told):
    # Large enough for the compiled kernels; the file is a hole but for its first block.
    shape = (SMALL // (64 * 1024 * 4) + 1, 64, 1024)
    values = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, shape)
    values[:4] = np.random.default_rng(0).normal(3, 2, (4, *shape[1:]))
    values.flush()
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    command = [sys.executable, "-m", "normcli", "fit", "-q", "-j", str(workers)]
    process = subprocess.Popen(
        [*command, str(tmp_path / "x.npy"), "--layout", "NCH", "-o", str(tmp_path / "s.json")],
        env={**environment, **told},
    )
    used = cpu_of_threads(process)
    assert process.returncode == 0
    assert used[0] > 10, used
    assert sum(1 for ticks in used if ticks > SHARE * used[0]) <= workers, used
