"""Every hostile, broken and odd file by a process of its own, whose steps are watched.

The other tests of this folder run the command line in their own process. Here strace tells which
files each run opened, which programs it started and whether it went to the network.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.terminal import Ended, drafts
from tests.faults.conftest import shim
from tests.faults.forked import Forked, Forks
from tests.hostile import (
    test_hdf5_files,
    test_npy_and_npz,
    test_parameters_and_models,
    test_zarr_files,
)
from tests.hostile.commands import FIT, Case, case, require_told
from tests.hostile.odd_files import ODD
from tests.hostile.test_odd_files import require_right

__all__ = ["shim"]

SECONDS = 60
MOST_BYTES = 600 << 20
STRACE = shutil.which("strace")
# Where programs, libraries and what the kernel tells of the machine are.
SYSTEM = (
    *{os.path.realpath(place) for place in (sys.prefix, sys.base_prefix, *sys.path)},
    *("/usr/", "/lib", "/etc/ld.so", "/etc/localtime", "/sys/", "/dev/null", "/dev/urandom"),
    "/dev/shm/sem.",
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/"),
)
OF_ITSELF = re.compile(
    r"/proc/\d+/(stat|status|statm|maps|cgroup|mountinfo|mounts|fd|task|limits|smaps_rollup|cmdline)"
)
PROBE_OF_TEMPFILE = re.compile(rf"{re.escape(tempfile.gettempdir())}/[a-z0-9_]{{8}}")
OPENED = re.compile(r"openat2?\(\S+ \"?.*= \d+<(?P<path>.*)>$")
STARTED = re.compile(r"execve\(\"(?P<path>[^\"]*)\".*= 0$")
CONNECTED = re.compile(r"connect\(.*sa_family=AF_INET")


def leading_out(write) -> Case:
    def build(folder: Path) -> str:
        test_hdf5_files.secret(folder)
        return test_hdf5_files.made(write)(folder)

    return case(build, 4, "x.h5", "secret.")


def linked(make) -> Case:
    def build(folder: Path) -> str:
        (folder / "outside").mkdir()
        make(test_zarr_files.store(folder), folder / "outside")
        return "x.zarr"

    return case(build, 4, "outside", "--allow-symlinks")


BROKEN: dict[str, dict[str, Case]] = {
    "npy": test_npy_and_npz.CASES,
    "hdf5": {
        **test_hdf5_files.CASES,
        **{write.__name__: leading_out(write) for write in test_hdf5_files.LEADING_OUT},
    },
    "zarr": {
        **test_zarr_files.CASES,
        **{make.__name__: linked(make) for make in test_zarr_files.LINKS},
    },
    "parameters": {
        name: given
        for name, given in test_parameters_and_models.CASES.items()
        if test_parameters_and_models.installed(name)
    },
}


@dataclass
class Watch:
    """Runs that are forked from one process, and what strace says of each."""

    forks: Forks
    log: Path | None
    read: int = 0
    lines: list[str] = field(default_factory=list)

    def run(self, *arguments: object, cwd: Path) -> Forked:
        self._news()
        ended = self.forks.run(*arguments, cwd=cwd, timeout=SECONDS)
        self.lines = self._news()
        return ended

    def _news(self) -> list[str]:
        if self.log is None or not self.log.exists():
            return []
        with open(self.log, errors="replace") as file:
            file.seek(self.read)
            text = file.read()
            whole = text.rfind("\n") + 1
            self.read += len(text[:whole].encode())
        return text[:whole].splitlines()

    def opened(self) -> list[str]:
        """Return the files that were opened, by the names that the kernel has for them."""
        found = [match["path"] for line in self.lines if (match := OPENED.search(line))]
        # What is not ASCII comes in octal digits.
        return [path.encode().decode("unicode_escape").encode("latin1").decode() for path in found]

    def outside(self, allowed: list[Path]) -> list[str]:
        """Return what was opened beside the system and what is allowed, and connections."""
        near = [str(path) for path in allowed]
        return [
            path
            for path in self.opened()
            if not path.startswith(SYSTEM)
            and not OF_ITSELF.match(path)
            and not PROBE_OF_TEMPFILE.fullmatch(path)
            and not path.startswith(tuple(f"{name}{end}" for name in near for end in "/.-"))
            and path not in (*near, str(allowed[0].parent))
        ] + [line for line in self.lines if CONNECTED.search(line)]

    def started(self) -> list[str]:
        """Return programs other than Python that were started."""
        paths = [found["path"] for line in self.lines if (found := STARTED.search(line))]
        return [
            path for path in paths if os.path.realpath(path) != os.path.realpath(sys.executable)
        ]


@pytest.fixture(scope="module")
def watch(shim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    if STRACE is None:
        with Forks(shim.library) as forks:
            yield Watch(forks, None)
        return
    log = tmp_path_factory.mktemp("watched") / "log"
    names = "trace=openat,openat2,execve,connect"
    under = (STRACE, "-f", "-y", "-qq", "--seccomp-bpf", "-s", "4096", "-e", names, "-o", str(log))
    with Forks(shim.library, under) as forks:
        watch = Watch(forks, log)
        watch.run("--version", cwd=log.parent)
        yield watch


def named(folder: Path, name: str) -> list[Path]:
    """Return what a command names in `folder`, with what belongs to its outputs."""
    outputs = ("s.json", "y.npy", ".s.json", ".y.npy", "x.npy", "one.npy")
    root = Path(name)
    while not (folder / root).is_file() and len(root.parts) > 1 and ".zarr" not in root.name:
        root = root.parent
    texts = folder.parent / f".faults-{folder.name}"
    return [folder / part for part in (root, *outputs)] + [texts]


def tell(watch: Watch, ended: Forked, folder: Path, allowed: list[Path]) -> dict[str, int]:
    """Return what must never be, counted."""
    hung = ended.code == -signal.SIGKILL and ended.seconds >= SECONDS
    outside, started = watch.outside(allowed), watch.started()
    found = {
        "outside": len(outside),
        "executed": len(started) + (folder / "canary").exists(),
        "tracebacks": "Traceback" in ended.err,
        "signal_deaths": ended.code < 0 and not hung,
        "hangs": hung,
        "too_much_memory": ended.peak > MOST_BYTES,
    }
    assert not any(found.values()), (found, outside, started, ended)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_and_hostile(watch: Watch, tmp_path, monkeypatch, figures, kind):
    for number, (name, given) in enumerate(BROKEN[kind].items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        path = given.build(folder)
        line = given.line(path)
        ended = watch.run(*line, cwd=folder)
        # A device that a case names by its link is opened by nobody, and a pipe by its own name.
        never = tell(watch, ended, folder, named(folder, path))
        require_told(Ended(ended.code, ended.out.encode(), ended.err), given)
        assert [found.name for found in folder.glob("[sy].*")] == [], name
        assert drafts(folder) == [], name
        figures.count("R4", files=1, right=1, **never)
        figures.most("R4", peak_mib=ended.peak / (1 << 20))
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_odd_but_valid(watch: Watch, tmp_path, monkeypatch, figures):
    for number, make in enumerate(ODD.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, values = make(folder)
        line = [path if word == "{}" else word for word in FIT]
        ended = watch.run(*line, cwd=folder)
        never = tell(watch, ended, folder, named(folder, path))
        assert ended.code == 0, ended.err
        require_right(folder / "s.json", values)
        figures.count("R4", files=1, right=1, **never)
        shutil.rmtree(folder)


def test_the_watch_sees_what_is_opened(watch: Watch, tmp_path):
    """With the option that allows it, the other file is opened, and that is seen."""
    if STRACE is None:
        pytest.skip("there is no strace")
    test_hdf5_files.secret(tmp_path)
    path = test_hdf5_files.made(test_hdf5_files.external_last)(tmp_path)
    line = ["fit", path, "-o", "s.json", "--allow-external-refs"]
    assert watch.run(*line, cwd=tmp_path).code == 0
    assert str(tmp_path / "secret.h5") in watch.outside(named(tmp_path, path))
    assert str(tmp_path / "x.h5") in watch.opened()
