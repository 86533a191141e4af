from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with one small array ``x.npy`` of shape (40, 6)."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(5).normal(3, 2, (40, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    return tmp_path
