"""The same examples in every run, so that a change of the code is what changes an outcome.

``HYPOTHESIS_PROFILE=default`` searches afresh.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.compiling import share
from tests.examples import CUT
from tests.figures import figures, pytest_terminal_summary

__all__ = ["figures", "pytest_terminal_summary"]

FOLDERS = itertools.count()

settings.register_profile("fixed", derandomize=True)
settings.register_profile("few", derandomize=True, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# A shell starts what runs in its background deaf to Ctrl-C, nohup deaf to the end of the terminal,
# and so would be every run under test.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Tell `tests.examples` whether this is the fast cut, and let processes keep their bytecode."""
    if "not slow" in config.getoption("markexpr"):
        os.environ[CUT] = "1"
        if "HYPOTHESIS_PROFILE" not in os.environ:
            settings.load_profile("few")
    else:
        os.environ.pop(CUT, None)
    # Hundreds of processes are started. Each would compile the sources of normcli: 0.13 of 0.6 s.
    # Only sources that change from run to run must be compiled by each (`tests.mutations`).
    if os.environ.get("PYTHONDONTWRITEBYTECODE") != "mutants":
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Look through nothing while it only grows."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take thousands of tests and the libraries, which live to the end, out of each collection.

    Looking through them takes 0.3 s or more, each of the hundreds of times.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for one test, as pytest does, but for its number.

    pytest looks through all folders for the next number: 5 s of CPU in thousands of tests.
    """
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}-{next(FOLDERS)}", numbered=False)


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the processes of one run share what they compile."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = tmp_path_factory.getbasetemp().parent / "compiling"
            folder.mkdir(exist_ok=True)
            share(folder, monkeypatch)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Start one process more than there are cores for ``-n auto``.

    Tests of processes and storage wait for a quarter of their time. With three processes on two
    cores, those of faults and of the command line took 88 s instead of 101.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process one stretch of tests, from whose end the others take when they are done.

    By default processes take turns, test by test. Then each compiles the kernels of every file, and
    starts the cluster of every file.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
