"""With --isolate, a chunk that kills, blocks or bloats its library is an error that names it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from normcli.arrays import isolated_child
from normcli.arrays.buffers import BlockBuffer
from normcli.arrays.isolated import IsolatedSource
from normcli.arrays.isolated_child import Opener
from normcli.arrays.opening import open_source
from normcli.arrays.rules import InputRules
from normcli.domain.grid import Block
from normcli.errors import DataPolicyError, InputError, SafetyError
from tests.cli.terminal import NORMCLI, call, drafts, environment
from tests.examples import steps
from tests.hostile.killing_sources import SHAPE, VALUES, open_sound

WHOLE = Block(0, (0, 0), SHAPE)
SECOND = Block(1, (2, 0), (4, 4))
LAST = Block(2, (4, 0), (6, 4))


@pytest.fixture
def killing(request):
    """A source of which a child does what the test names, where it reads the second chunk."""
    opened = []

    def make(*arguments: str) -> IsolatedSource:
        opener = Opener("tests.hostile.killing_sources", "open_killing", arguments)
        opened.append(IsolatedSource(open_sound(), opener))
        return opened[-1]

    yield make
    for source in opened:
        source.close()


@pytest.mark.parametrize(
    ("happens", "kind", "words"),
    [
        ("crash", InputError, r"killing at \(2, 0\) crashes the library that reads it \(SIGSEGV\)"),
        ("abort", InputError, r"killing at \(2, 0\) crashes .* \(SIGABRT\)"),
        ("compute_for_ever", InputError, r"killing at \(2, 0\) keeps its library busy for more"),
        ("take_memory", SafetyError, r"killing asks for more than 2 GiB of memory"),
        ("refuse", DataPolicyError, r"the second chunk is not wanted"),
        ("fail", InputError, r"killing could not be read: the real call will say so"),
    ],
)
def test_what_a_chunk_does_to_a_library(killing, happens, kind, words):
    source = killing(happens)
    with pytest.raises(kind, match=words):
        source.read(WHOLE)
    # The next block meets a child that is as good as new.
    assert source.read(LAST).tobytes() == VALUES[4:].astype("=f4").tobytes()


def test_waiting_for_ever(killing, monkeypatch):
    source = killing("wait_for_ever")
    source.read(LAST)  # the child has started
    monkeypatch.setattr(isolated_child, "WALL_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"killing at \(2, 0\) keeps its library busy for more"):
        source.read(SECOND)


@pytest.mark.parametrize("order", ["C", "F"])
def test_elements_orders_and_buffers(killing, order):
    """What a library prints is not taken for an answer."""
    source = killing("print_much", order)
    for buffer in (None, BlockBuffer()):
        values = source.read(WHOLE, buffer)
        assert values.dtype == np.dtype("=f4")
        assert values.flags.f_contiguous == (order == "F")
        np.testing.assert_array_equal(values, VALUES)
    assert source.read(Block(0, (0, 0), (0, 4))).shape == (0, 4)


def test_it_travels_and_children_end_with_it(killing):
    source = killing("print_much")
    source.read(WHOLE)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(LAST), VALUES[4:])
    for one in (source, copy):
        pids = [child._process.pid for child in one._children.get()._free]
        assert len(pids) == 1
        one.close()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_threads_have_children_of_their_own(killing):
    source = killing("print_much")
    barrier = threading.Barrier(2)

    def read() -> None:
        barrier.wait()
        for _ in range(20):
            np.testing.assert_array_equal(source.read(WHOLE), VALUES)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(source._children.get()._free) <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is that of Linux")
def test_children_do_not_outlive_a_killed_parent():
    code = (
        "import os\n"
        "from tests.hostile.test_isolated_reading import *\n"
        "opener = Opener('tests.hostile.killing_sources', 'open_killing', ('do_well',))\n"
        "source = IsolatedSource(open_sound(), opener)\n"
        "source.read(LAST)\n"
        "print(source._children.get()._free[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False
    )
    assert ended.returncode == -9, ended.stderr
    place = Path(f"/proc/{int(ended.stdout)}")
    deadline = time.monotonic() + 30
    while place.exists() and "Z" not in (place / "stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="seals are those of Linux")
def test_the_shared_memory_cannot_be_taken_away():
    """Else a child that was taken over could kill this process by a signal."""
    memory = isolated_child._shared_memory()
    try:
        os.ftruncate(memory, 8192)
        with pytest.raises(PermissionError):
            os.ftruncate(memory, 4096)
    finally:
        os.close(memory)


@pytest.fixture
def arrays(tmp_path) -> Path:
    values = np.random.default_rng(0).normal(3, 2, (12, 5, 9)).astype("f4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=values, chunks=(5, 5, 4), compression="gzip")
        file.create_dataset("lzf", data=values[:, ::-1], chunks=(5, 5, 4), compression="lzf")
    for name, more in (("x.zarr", {"shards": (8, 5, 9)}), ("v2.zarr", {"zarr_format": 2})):
        order = {"order": "F"} if more.get("zarr_format") == 2 else {}
        array = zarr.create_array(
            tmp_path / name, shape=values.shape, chunks=(4, 5, 9), dtype="f4", **more, **order
        )
        array[...] = values
    np.save(tmp_path / "x.npy", values)
    return tmp_path


@pytest.mark.parametrize("name", ["x.h5/data", "x.h5/lzf", "x.zarr", "v2.zarr"])
def test_the_same_elements(arrays, name):
    plain = open_source(str(arrays / name))
    apart = open_source(str(arrays / name), InputRules(isolate=True))
    assert isinstance(apart, IsolatedSource)
    block = Block(0, (3, 1, 2), (12, 5, 9))
    a, b = plain.read(block), apart.read(block)
    np.testing.assert_array_equal(a, b)
    assert (a.dtype, a.flags.f_contiguous) == (b.dtype, b.flags.f_contiguous)
    assert apart.identity() == plain.identity()
    apart.close()


def test_the_commands(arrays, monkeypatch):
    monkeypatch.chdir(arrays)
    for number, isolate in enumerate(([], ["--isolate"])):
        for command in (
            ("fit", "x.h5/data", "v2.zarr", "-o", f"fit{number}.npz"),
            ("apply", "x.zarr", "-o", f"y{number}.npy", "--no-stats-out"),
            ("learn", "x.h5/data", "x.zarr", "-o", f"a{number}.npz"),
        ):
            ended = call(*command, *isolate)
            assert ended.code == 0, ended
    with np.load("fit0.npz") as a, np.load("fit1.npz") as b:
        for field in ("count", "mean", "m2", "minimum", "maximum"):
            assert a[field].tobytes() == b[field].tobytes()
    assert Path("y0.npy").read_bytes() == Path("y1.npy").read_bytes()
    with np.load("a0.npz") as a, np.load("a1.npz") as b:
        assert a["scale"].tobytes() == b["scale"].tobytes()


def test_a_file_that_kills_hdf5_by_its_sixth_chunk(tmp_path):
    """SZ3 takes any header for its own. The first chunk is sound, so a first look sees nothing."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    values = np.random.default_rng(0).normal(size=(8, 64, 64)).astype("f4")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        filters = hdf5plugin.SZ3(absolute=1e-3)
        file.create_dataset("data", data=values, chunks=(1, 64, 64), **filters)
        place = file["data"].id.get_chunk_info(5).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 32)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NORMCLI, *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    plain = run("fit", "x.h5", "-o", "s.json")
    if plain.returncode == 3:
        pytest.skip("this SZ3 refuses the chunk by itself")
    assert plain.returncode < 0, plain
    for command in (
        ("fit", "x.h5", "-o", "s.json"),
        ("apply", "x.h5", "-o", "y.h5"),
        ("learn", "x.h5", "x.h5", "-o", "a.npz"),
    )[:: steps(3)]:
        ended = run(*command, "--isolate")
        assert ended.returncode == 3, ended
        assert "x.h5/data at (5, 0, 0) crashes the library that reads it (SIG" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / command[-1]).exists()
    assert drafts(tmp_path) == []
