from __future__ import annotations

from pathlib import Path

import pytest

from normcli.kernels import select

from .desk import Desk


@pytest.fixture(params=["numpy", "numba"])
def kernel(request, monkeypatch) -> str:
    """Run a test by both implementations, whatever the size of its arrays."""
    monkeypatch.setattr(select, "SMALL", 0 if request.param == "numba" else 1 << 62)
    return request.param


@pytest.fixture
def desk(tmp_path: Path, kernel: str) -> Desk:
    return Desk(tmp_path, kernel)
