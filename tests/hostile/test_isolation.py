"""Files that kill, block or bloat the library that reads them become errors with an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from normcli import isolation
from normcli.errors import InputError, SafetyError
from tests.hostile.commands import limited
from tests.hostile.mutations import Seed, hdf5

KILLERS = "tests.hostile.killers"
MIB = 1 << 20


@pytest.fixture(params=["forked", "helper"])
def way(request, monkeypatch):
    """Trials are forked from this process, or from a helper where other threads run."""
    if sys.platform != "linux":
        pytest.skip("limits of address space are those of Linux")
    monkeypatch.setattr(isolation, "_may_fork", lambda: request.param == "forked")
    monkeypatch.setattr(isolation, "_SURVIVED", set())
    helper = isolation._Helper()
    monkeypatch.setattr(isolation, "_HELPER", helper)
    yield request.param
    helper._stop()


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "x.h5"
    path.touch()
    return path


def trial(file: Path, function: str) -> None:
    isolation.require_survival(str(file), KILLERS, function)


class TestTrials:
    @pytest.mark.parametrize(("function", "name"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
    def test_a_crash(self, file, way, function, name):
        with pytest.raises(InputError, match=rf"x\.h5 crashes the library that reads it \({name}"):
            trial(file, function)

    def test_a_loop(self, file, monkeypatch):
        monkeypatch.setattr(isolation, "_may_fork", lambda: True)
        monkeypatch.setattr(isolation, "CPU_SECONDS", 1)
        with pytest.raises(InputError, match=r"busy for more than 1 s"):
            trial(file, "compute_for_ever")

    def test_waiting(self, file, monkeypatch):
        monkeypatch.setattr(isolation, "_may_fork", lambda: True)
        monkeypatch.setattr(isolation, "WALL_SECONDS", 0.5)
        with pytest.raises(InputError, match=r"busy for more than 0\.5 s"):
            trial(file, "wait_for_ever")

    def test_memory(self, file, way):
        with pytest.raises(SafetyError, match="more than 2 GiB of memory"):
            trial(file, "take_memory")

    def test_errors_are_left_to_the_real_call(self, file, way):
        trial(file, "fail")

    def test_once_for_a_file_that_stays(self, file, way):
        """The trial itself changes the file here, so that the next call is tried again."""
        for times in (1, 2):
            trial(file, "do_well")
            assert file.read_text() == "tried\n" * times
        for _ in range(2):
            trial(file, "fail")
        assert len(isolation._SURVIVED) == 3

    def test_no_trial_in_a_trial(self, file, way):
        """The inner call would write to the file."""
        with pytest.raises(InputError, match="SIGABRT"):
            trial(file, "ask_again")

    def test_after_a_crash_the_next_file_is_tried(self, file, way):
        with pytest.raises(InputError):
            trial(file, "crash")
        trial(file, "do_well")
        assert file.read_text() == "tried\n"


def test_what_a_trial_may_take(file, way):
    trial(file, "tell_limits")
    assert file.read_text() == f"{isolation.CPU_SECONDS} 0"


def test_the_helper_has_a_clean_environment(monkeypatch):
    names = ("HDF5_PLUGIN_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME")
    for name in names:
        monkeypatch.setenv(name, "/tmp")
    assert not set(names) & set(isolation.clean_environment())
    assert "PATH" in isolation.clean_environment()


def test_threads_decide_who_forks():
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert not isolation._may_fork()
    finally:
        done.set()
        other.join()


def test_openmp_decides_who_forks(tmp_path):
    """A child that is forked where the bitshuffle filter ran waits for its threads for ever."""
    pytest.importorskip("hdf5plugin")
    code = (
        "import h5py, hdf5plugin, numpy as np, normcli\n"
        "from normcli import isolation\n"
        "assert isolation._may_fork()\n"
        "values = np.arange(2.0**16, dtype='f4').reshape(16, -1)\n"
        "for name in 'ab':\n"
        "    with h5py.File(name + '.h5', 'w') as file:\n"
        "        packed = hdf5plugin.Bitshuffle(cname='lz4')\n"
        "        file.create_dataset('x', data=values, chunks=(8, 4096), **packed)\n"
        "    normcli.fit(name + '.h5', layout='NC', workers=1)\n"
        "assert not isolation._may_fork()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def kills(path: Path) -> bool:
    """Whether reading attributes and datasets of a file kills a process that just does it."""
    code = (
        "import sys, h5py\n"
        "def visit(name, node):\n"
        "    dict(node.attrs), node[...] if hasattr(node, 'shape') else None\n"
        "h5py.File(sys.argv[1]).visititems(visit)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    return ended.returncode < 0


def test_files_that_kill_hdf5(tmp_path):
    """Of these mutants, some kill h5py by a signal; normcli refuses them or reads them right."""
    seed = Seed(hdf5, tmp_path)
    killed = refused = 0
    for number in KILLING:
        seed.mutate(number)
        killed += kills(seed.root)
        ended, seconds, memory = limited("fit", seed.name, "-o", "s.json", cwd=tmp_path)
        assert ended.code in (0, 3, 4), (number, ended)
        assert "Traceback" not in ended.err
        assert seconds < 60
        assert memory < 600 * MIB
        refused += "crashes the library" in ended.err
        (tmp_path / "s.json").unlink(missing_ok=True)
    if killed:  # another HDF5 may have learned to refuse them
        assert refused


KILLING = (2119, 2151, 2343, 2375, 2956, 2993)
