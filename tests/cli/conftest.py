from __future__ import annotations

import signal
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


@pytest.fixture(scope="session", autouse=True)
def _signals_are_not_ignored():
    """A process started in the background ignores Ctrl-C, and so would commands under test."""
    before = {}
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
