"""A run that is killed, at whatever moment, is continued by the same command to the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from normcli.bundles.formats import read_bundle
from tests.cli.terminal import run
from tests.faults.conftest import FORMATS
from tests.faults.outcomes import hidden, outcome
from tests.faults.shim import Shim

# 4 MiB are for the tiles of a worker; what is left makes several blocks of each input.
BUDGETS = {
    "x.npy": "4116KiB",
    "plain.h5": "4116KiB",
    "x.h5": "4220KiB",
    "x.zarr": "4200KiB",
    "v2.zarr": "4200KiB",
    "sharded.zarr": "4220KiB",
}
# The fast suite kills at a few of these; the slow one at every operation.
SOME = (2, 7, 13, 19, 26)


def arguments(inputs: Path, name: str, *more: str) -> list[str]:
    source = inputs / name
    inner = "/x" if source.suffix == ".h5" else ""
    output = f"y{source.suffix}"
    return ["apply", f"{source}{inner}", "-o", output, "--memory", BUDGETS[name], *more]


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """Return what uninterrupted runs leave."""
    found = {}

    def of(name: str, *more: str):
        if (name, more) not in found:
            folder = tmp_path_factory.mktemp("whole")
            ended = run(*arguments(inputs, name, *more), cwd=folder)
            assert ended.code == 0, ended.err
            assert hidden(folder) == []
            found[name, more] = outcome(folder, "y")
        return found[name, more]

    return of


def killed_then_continued(shim, inputs, folder, name, whole, number, *more) -> bool:
    """Kill a run at its N-th file operation; return whether there was such an operation."""
    command = arguments(inputs, name, *more)
    faulty = shim.run(
        *command,
        cwd=folder,
        at=number,
        signal=int(signal.SIGKILL),
        match=str(folder),
        ops="write,fsync,rename,unlink,ftruncate,mkdir,close",
    )
    if not faulty.hits:
        assert faulty.code == 0, faulty.err
        assert outcome(folder, "y") == whole(name, *more)
        return False
    assert faulty.code == -signal.SIGKILL
    left = outcome(folder, "y")
    assert all(left[part] == whole(name, *more)[part] for part in left)
    ended = run(*command, cwd=folder)
    assert ended.code == 0, (faulty.hits, ended.err)
    assert outcome(folder, "y") == whole(name, *more), faulty.hits
    assert hidden(folder) == [], faulty.hits
    return True


@pytest.mark.parametrize("name", FORMATS)
def test_killed_at_some_operations(shim: Shim, inputs, tmp_path, whole, name):
    for number in SOME[:: 1 if name == "x.zarr" else 2]:
        folder = tmp_path / str(number)
        folder.mkdir()
        assert killed_then_continued(shim, inputs, folder, name, whole, number)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "instance"])
@pytest.mark.parametrize("name", FORMATS)
def test_killed_at_every_operation(shim: Shim, inputs, tmp_path, whole, name, mode):
    number = 1
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        if not killed_then_continued(shim, inputs, folder, name, whole, number, "--mode", mode):
            break
        number += 1
    assert number > 20


@pytest.mark.parametrize("more", [(), ("--part", "2/3")], ids=["whole", "part"])
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_killed_fit_keeps_its_exact_sums(shim: Shim, inputs, tmp_path, suffix, more):
    command = ["fit", str(inputs / "x.zarr"), "-o", f"s.{suffix}", "--memory", "4300KiB", *more]
    (tmp_path / "whole").mkdir()
    assert run(*command, cwd=tmp_path / "whole").code == 0
    arrays = read_bundle(str(tmp_path / "whole" / f"s.{suffix}")).arrays
    assert {"exponent", "total", "squares"} <= set(arrays)
    continued = 0
    for number in (2, 3, 4, 6, 9):
        folder = tmp_path / str(number)
        folder.mkdir()
        faulty = shim.run(
            *command,
            cwd=folder,
            at=number,
            signal=int(signal.SIGKILL),
            match=str(folder),
            ops="write,fsync,rename,unlink,ftruncate,mkdir,close",
        )
        assert faulty.code == -signal.SIGKILL
        ended = run(*command, cwd=folder)
        assert ended.code == 0, ended.err
        continued += "continuing: " in ended.err
        found = read_bundle(str(folder / f"s.{suffix}")).arrays
        assert {n: a.tobytes() for n, a in found.items()} == {
            n: a.tobytes() for n, a in arrays.items()
        }
    assert continued


def test_the_next_run_says_how_much_was_done(shim: Shim, inputs, tmp_path):
    command = arguments(inputs, "x.npy")
    faulty = shim.run(
        *command, cwd=tmp_path, at=3, signal=9, match="journal", ops="write", delay=20000
    )
    assert faulty.code == -9
    assert hidden(tmp_path) == [".y.npy.normcli-work"]
    ended = run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "continuing: " in ended.err
    assert "were done by an interrupted run" in ended.err


def interrupted(shim: Shim, inputs, folder, *more) -> list[str]:
    command = arguments(inputs, "x.npy", *more)
    faulty = shim.run(*command, cwd=folder, at=3, signal=9, match="journal", ops="write")
    assert faulty.code == -9
    return command


def test_other_settings_begin_afresh_and_say_so(shim: Shim, inputs, tmp_path, whole):
    command = interrupted(shim, inputs, tmp_path)
    ended = run(*command, "--epsilon", "0.5", cwd=tmp_path)
    assert ended.code == 0
    assert "had other settings (normalization), so this one begins afresh" in ended.err
    assert "continuing" not in ended.err
    assert outcome(tmp_path, "y")["y.npy"] != whole("x.npy")["y.npy"]
    assert hidden(tmp_path) == []


def test_a_changed_input_begins_afresh(shim: Shim, inputs, tmp_path):
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy"))
    command = ["apply", "in.npy", "-o", "y.npy", "--memory", BUDGETS["x.npy"]]
    faulty = shim.run(*command, cwd=tmp_path, at=3, signal=9, match="journal", ops="write")
    assert faulty.code == -9
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy") * 2)
    ended = run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "had other settings (input)" in ended.err
    np.save(tmp_path / "in.npy", np.load(inputs / "x.npy") * 2)
    again = run("apply", "in.npy", "-o", "z.npy", cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()


def test_restart_begins_afresh(shim: Shim, inputs, tmp_path, whole):
    command = interrupted(shim, inputs, tmp_path)
    ended = run(*command, "--restart", cwd=tmp_path)
    assert ended.code == 0
    assert "continuing" not in ended.err
    assert outcome(tmp_path, "y") == whole("x.npy")


def test_more_workers_and_another_budget_continue(shim: Shim, inputs, tmp_path, whole):
    command = interrupted(shim, inputs, tmp_path)
    at = command.index("--memory")
    ended = run(*command[:at], "--memory", "1GiB", "-j", "2", *command[at + 2 :], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "continuing: " in ended.err
    assert outcome(tmp_path, "y") == whole("x.npy")


def test_too_small_a_budget_for_the_blocks_begun_is_refused(shim: Shim, inputs, tmp_path):
    command = interrupted(shim, inputs, tmp_path)
    at = command.index("--memory")
    ended = run(*command[:at], "--memory", "4100KiB", *command[at + 2 :], cwd=tmp_path)
    assert ended.code == 2
    assert "was planned for blocks that need" in ended.err
    assert "--restart" in ended.err


def test_clean_lists_and_removes(shim: Shim, inputs, tmp_path):
    interrupted(shim, inputs, tmp_path)
    listed = run("clean", "--dry-run", "y.npy", cwd=tmp_path)
    assert listed.code == 0
    assert ".y.npy.normcli-work" in listed.text
    assert "would be removed" in listed.text
    assert hidden(tmp_path) == [".y.npy.normcli-work"]
    assert run("clean", ".", cwd=tmp_path).code == 0
    assert hidden(tmp_path) == []
    again = run("clean", "y.npy", cwd=tmp_path)
    assert (again.code, again.text) == (0, "")
    assert "nothing was left" in again.err


def test_clean_leaves_a_running_run_alone(shim: Shim, inputs, tmp_path):
    process = shim.popen(
        *arguments(inputs, "x.npy"), cwd=tmp_path, delay=300000, ops="write", match="draft"
    )
    try:
        while not (tmp_path / ".y.npy.normcli-work" / "journal").exists():
            assert process.poll() is None
        cleaned = run("clean", "y.npy", cwd=tmp_path)
        assert "left alone" in cleaned.text
        second = run(*arguments(inputs, "x.npy"), cwd=tmp_path)
        assert second.code == 6
        assert f"being written by another run: process {process.pid}" in second.err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", range(1, 4))
def test_killed_between_the_names(shim: Shim, inputs, tmp_path, whole, number):
    """An earlier output stays with its sidecar, or has none, until the new pair is there."""
    command = arguments(inputs, "x.zarr", "--overwrite")
    earlier = run(*command, "--epsilon", "0.5", cwd=tmp_path)
    assert earlier.code == 0
    before = outcome(tmp_path, "y")
    faulty = shim.run(*command, cwd=tmp_path, at=number, signal=9, match="/y.zarr", ops="rename")
    assert faulty.code == -9, faulty.err
    left = outcome(tmp_path, "y")
    new = whole("x.zarr")
    assert all(left[p] == before[p] for p in left) or all(left[p] == new[p] for p in left)
    ended = run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "was complete but for its name" in ended.err
    assert outcome(tmp_path, "y") == new
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGXCPU, 152)],
)
def test_a_signal_keeps_what_is_done(shim: Shim, inputs, tmp_path, whole, number, code):
    command = arguments(inputs, "x.npy")
    process = shim.popen(*command, cwd=tmp_path, delay=100000, ops="write", match="draft")
    journal = tmp_path / ".y.npy.normcli-work" / "journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
    process.send_signal(number)
    told = process.communicate(timeout=5)[1].decode()
    assert process.returncode == code, told
    assert f"stopped by {number.name}" in told
    assert "are kept; the same command continues" in told
    ended = run(*command, cwd=tmp_path)
    assert ended.code == 0
    assert "continuing: " in ended.err
    assert outcome(tmp_path, "y") == whole("x.npy")


def test_usr1_tells_where_the_run_is_and_goes_on(shim: Shim, inputs, tmp_path):
    process = shim.popen(
        *arguments(inputs, "x.npy", "-q"), cwd=tmp_path, delay=50000, ops="write", match="draft"
    )
    journal = tmp_path / ".y.npy.normcli-work" / "journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0
    assert "normcli: " in told
    assert " %" in told
