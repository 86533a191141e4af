"""Bytes of small files are changed by fixed seeds: each mutant is read right, or refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.terminal import call, printable_only
from tests.figures import Figures
from tests.hostile.mutations import CHECKED, FORMATS, Seed

_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs")
_FEW = 8
# Together, of all storages of a format.
_MANY = 3010
_SECONDS = 30

MAKERS = [make for makers in FORMATS.values() for make in makers]
SHARE = {make: _MANY // len(makers) for makers in FORMATS.values() for make in makers}
FORMAT = {make: name.split()[0] for name, makers in FORMATS.items() for make in makers}


def fitted(name: str) -> tuple[int, str, dict | None]:
    """Fit an input; return the exit code, what was said, and the statistics."""
    Path("s.json").unlink(missing_ok=True)
    ended = call("fit", name, "-o", "s.json", "-q")
    arrays = json.loads(Path("s.json").read_text())["arrays"] if ended.code == 0 else None
    return ended.code, ended.err, arrays


def survey(make, folder: Path, numbers: range, figures: Figures) -> dict[int, int]:
    """Fit mutants; return how often each exit code came.

    A mutant that kills the process kills the test with it.
    """
    seed = Seed(make, folder)
    code, err, sound = fitted(seed.name)
    assert code == 0, err
    codes: dict[int, int] = {}
    for number in numbers:
        path, _ = seed.mutate(number)
        begin = time.process_time()
        code, err, arrays = fitted(seed.name)
        where = (make.__name__, number, path.name, err)
        assert time.process_time() - begin < _SECONDS, where
        assert code in (0, 3, 4, 7), where
        assert "Traceback" not in err, where
        assert printable_only(err), where
        if code:
            assert err.count("normcli: error: ") == 1, where
            assert not Path("s.json").exists(), where
        elif make in CHECKED and path.name not in _DOCUMENTS:
            assert arrays == sound, where
        figures.count(
            "R5", mutants=1, **{FORMAT[make]: 1}, crashes=0, hangs=0, silent_with_checksum=0
        )
        codes[code] = codes.get(code, 0) + 1
    return codes


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_few(tmp_path, monkeypatch, figures, make):
    monkeypatch.chdir(tmp_path)
    codes = survey(make, tmp_path, range(_FEW), figures)
    assert codes.get(3, 0) + codes.get(4, 0) + codes.get(7, 0)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_many(tmp_path, monkeypatch, figures, make):
    monkeypatch.chdir(tmp_path)
    survey(make, tmp_path, range(_FEW, SHARE[make]), figures)
