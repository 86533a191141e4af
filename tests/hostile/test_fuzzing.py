"""A search led by coverage, where atheris is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# Half a minute a format.
_SECONDS = {"npy": 30, "npz": 30, "zarr_document": 10, "zarr_chunk": 10, "zstd_frames": 10}
_TIMES = 40


@pytest.mark.slow
@pytest.mark.timeout(_TIMES * 60)
@pytest.mark.parametrize("name", _SECONDS)
def test_nothing_is_found(figures, name):
    pytest.importorskip("atheris")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzzing", name, str(_SECONDS[name])],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMES * _SECONDS[name],
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", ended.stderr)
    assert runs is not None, ended.stderr[-4000:]
    figures.count("R5", searched_by_coverage=int(runs[1]))
