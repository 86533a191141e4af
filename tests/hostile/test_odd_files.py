"""Each odd but valid file is fitted to the right numbers, and none is spoken ill of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import call, printable_only
from tests.hostile.commands import pooled
from tests.hostile.odd_files import ODD


def require_right(sidecar: Path, values: np.ndarray) -> None:
    wide = values.astype(np.float64)
    mean, variance, count = pooled(sidecar)
    assert count == wide.size
    assert mean == pytest.approx(wide.mean(), rel=1e-13)
    assert variance == pytest.approx(wide.var(), rel=1e-12)


def test_there_are_many():
    assert len(ODD) > 124


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_right(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, values = ODD[name](tmp_path)
    ended = call("fit", path, "-o", "s.json")
    assert ended.code == 0, ended.err
    assert printable_only(ended.err)
    require_right(tmp_path / "s.json", values)
