"""A search led by coverage, where atheris is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_SECONDS = 60


@pytest.mark.slow
@pytest.mark.timeout(20 * _SECONDS)
@pytest.mark.parametrize("name", ["npy", "npz", "zarr_document", "zarr_chunk", "zstd_frames"])
def test_nothing_is_found(figures, name):
    pytest.importorskip("atheris")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzzing", name, str(_SECONDS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=20 * _SECONDS,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", ended.stderr)
    assert runs is not None, ended.stderr[-4000:]
    figures.count("R5", searched_by_coverage=int(runs[1]))
