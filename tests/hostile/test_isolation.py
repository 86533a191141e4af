"""Files that kill, block or bloat the library that reads them become errors with an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli import isolation
from normcli.bundles.formats import read_bundle
from normcli.errors import InputError, SafetyError
from tests.examples import steps
from tests.hostile import killers
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
    monkeypatch.setattr(isolation, "_REFUSED", {})
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

    def test_a_file_that_ended_one_is_not_tried_again(self, file, way, monkeypatch):
        with pytest.raises(InputError, match="SIGSEGV"):
            trial(file, "crash")
        with pytest.raises(InputError, match="SIGSEGV"):
            trial(file, "do_well")
        assert file.read_text() == ""
        file.write_text("another\n")
        trial(file, "do_well")

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
        another = file.with_name("y.h5")
        another.touch()
        trial(another, "do_well")
        assert another.read_text() == "tried\n"


@pytest.mark.parametrize(
    ("error", "wants"),
    [
        (MemoryError(), True),
        (OSError("Can't read data (memory allocation failed for chunk)"), True),
        (KeyError("Unable to open object (can't allocate buffer)"), True),
        (OSError("Unable to open file (truncated file: name = '/allocations/x.h5')"), False),
        (KeyError("Unable to open object (object 'allocated' doesn't exist)"), False),
        (InputError("allocations/x.h5 has no dataset c."), False),
    ],
)
def test_only_want_of_memory_is_want_of_memory(error, wants):
    told = InputError("allocations/x.h5 could not be read as HDF5")
    told.__cause__ = error
    assert isolation.wants_memory(error) is isolation.wants_memory(told) is wants


def test_a_folder_of_any_name(tmp_path):
    """Names of files are no words of HDF5."""
    folder = tmp_path / "allocations"
    folder.mkdir()
    with h5py.File(folder / "x.h5", "w") as file:
        file["a"] = np.ones((4, 4))
    whole = (folder / "x.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[:900])
    for name, words in (("x.h5/b", "has no dataset b"), ("cut.h5", "truncated file")):
        ended = limited("fit", f"allocations/{name}", "-o", "s.json", cwd=tmp_path)[0]
        assert ended.code == 3
        assert words in ended.err


def endless(path: Path) -> None:
    """Write a file whose text HDF5 looks for in a heap that leads back to itself."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        file["mean"] = file["variance"] = np.ones(3)
    data = bytearray(path.read_bytes())
    data[data.index(b"GCOL") + 24] = 128  # the length of the text
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras", ".mat"])
class TestParameters:
    """Files of parameters may be as hostile as those of data."""

    @pytest.fixture
    def path(self, tmp_path, suffix, monkeypatch) -> str:
        monkeypatch.setattr(isolation, "_may_fork", lambda: True)
        monkeypatch.setattr(isolation, "_REFUSED", {})
        path, weights = tmp_path / f"p{suffix}", tmp_path / "weights"
        endless(weights)
        if suffix == ".keras":
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(weights, "model.weights.h5")
                archive.writestr("config.json", "{}")
        else:
            block = b"MATLAB 7.3".ljust(512, b"\0") if suffix == ".mat" else b""
            path.write_bytes(block + weights.read_bytes())
        return str(path)

    def test_nothing_opens_them_before_their_trial(self, path, monkeypatch):
        monkeypatch.setattr("normcli.bundles.hdf5_trial.try_bundle", killers.crash)
        monkeypatch.setattr(h5py, "File", None)
        with pytest.raises(InputError, match="crashes the library"):
            read_bundle(path)

    def test_one_that_keeps_hdf5_busy(self, path, monkeypatch):
        monkeypatch.setattr(isolation, "CPU_SECONDS", 1)
        with pytest.raises(InputError):  # MATLAB's reader passes over text
            read_bundle(path)


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
    """A child that is forked where bitshuffle ran waits for its threads for ever."""
    pytest.importorskip("hdf5plugin")
    pytest.importorskip("bitshuffle")  # without it hdf5plugin decodes, and has no OpenMP
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
    for number in KILLING[:: steps(3)]:
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
