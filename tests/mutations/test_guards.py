"""Each guard is deleted once, in a copy of normcli: a test must then fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutations.guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
PASSED, FAILED = 0, 1
NOT_COPIED = shutil.ignore_patterns("__pycache__", "benchmarks", "frameworks", "*.nbi", "*.nbc")


class Copy:
    """A copy of the package and its tests, and a process that runs those.

    Parameters
    ----------
    folder : Path
        Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("normcli", "tests", "docs"):
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_COPIED)
        shutil.copy(ROOT / "pyproject.toml", folder)
        # What was compiled of a file that changes again within a second would pass for the new.
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "mutants",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("forking.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, *tests: str, seconds: int = 60) -> tuple[int, str]:
        """Return how some tests end, and what they say; each of them fails after so long."""
        told = self.folder / "told.txt"
        order = {
            "cwd": str(self.folder),
            "told": str(told),
            "arguments": [
                *("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"),
                *("-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "not slow"),
                *("-rN", "--tb=line", f"--timeout={seconds}", f"--basetemp={self.folder / 'made'}"),
                *(f"tests/{test}" for test in tests),
            ],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return int(answer), told.read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """Return a copy for this process alone."""
    made = Copy(tmp_path_factory.mktemp("copy"))
    yield made
    made.close()
    shutil.rmtree(made.folder)


def test_names_are_unique():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_each_text_is_there_once():
    for guard in GUARDS:
        count = (ROOT / "normcli" / guard.file).read_text().count(guard.text)
        assert count == 1, (guard.name, guard.file, count)
        assert guard.tests, guard.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_all_guards_these_tests_pass(copy: Copy):
    code, told = copy.run(*dict.fromkeys(test for guard in GUARDS for test in guard.tests))
    assert code == PASSED, told


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_without_it_a_test_fails(copy: Copy, guard: Guard):
    file = copy.folder / "normcli" / guard.file
    whole = file.read_text()
    assert whole.count(guard.text) == 1, "this guard was rewritten: enter it anew"
    file.write_text(whole.replace(guard.text, guard.without))
    try:
        code, told = copy.run(*guard.tests, seconds=10 if guard.hangs else 60)
    finally:
        file.write_text(whole)
    assert code == FAILED, told
