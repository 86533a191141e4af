"""Each guard is deleted once, in a copy of normcli: a test must then fail."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a copy of the package and its tests, for this process alone."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("normcli", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=NOT_COPIED)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    yield folder
    shutil.rmtree(folder)


def run_tests(copy: Path, *tests: str) -> tuple[int, str]:
    """Return how tests of the copy end, and what they say."""
    # What was compiled of a file that changed again within a second would pass for the new one.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p"),
            *("no:xdist", "--no-header", "-rN", "--tb=line", "--timeout=60"),
            *(f"--basetemp={copy / 'made'}", *(f"tests/{test}" for test in tests)),
        ],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return ended.returncode, (ended.stdout + ended.stderr)[-3000:]


def test_names_are_unique():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_each_text_is_there_once():
    for guard in GUARDS:
        count = (ROOT / "normcli" / guard.file).read_text().count(guard.text)
        assert count == 1, (guard.name, guard.file, count)
        assert guard.tests, guard.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_all_guards_these_tests_pass(copy):
    code, told = run_tests(copy, *dict.fromkeys(test for guard in GUARDS for test in guard.tests))
    assert code == PASSED, told


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_without_it_a_test_fails(copy, guard: Guard):
    file = copy / "normcli" / guard.file
    whole = file.read_text()
    assert whole.count(guard.text) == 1, "this guard was rewritten: enter it anew"
    file.write_text(whole.replace(guard.text, guard.without))
    try:
        code, told = run_tests(copy, *guard.tests)
    finally:
        file.write_text(whole)
    assert code == FAILED, told
