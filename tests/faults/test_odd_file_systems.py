"""File systems without locks, with short names, read-only, or on the other side of a mount."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.commands import apply_command, source
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome, partly
from tests.faults.shim import Shim

LOCKLESS = ("ENOSYS", "ENOLCK", "EOPNOTSUPP")


@pytest.mark.parametrize("name", LOCKLESS)
def test_without_locks(forks: Forks, inputs, tmp_path, whole, name):
    """A run works, continues one that was killed, and keeps others away, all without flock."""
    command = apply_command(inputs, "x.npy")
    faults = {"ops": "flock", "persist": 1, "errno": getattr(errno, name), "match": str(tmp_path)}
    slow = {**faults, "at": 1}
    ended = forks.run(*command, cwd=tmp_path, **slow)
    assert ended.code == 0, ended.err
    assert ended.hits
    assert outcome(tmp_path, "y") == whole(command)
    assert hidden(tmp_path) == []


def test_others_are_kept_away_without_locks(shim: Shim, forks: Forks, inputs, tmp_path):
    command = apply_command(inputs, "x.npy")
    lockless = {"ops": "flock", "persist": 1, "errno": errno.ENOLCK, "at": 1}
    process = shim.popen(*command, cwd=tmp_path, **lockless)
    while not (tmp_path / ".y.npy.normcli-work" / "owner.json").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    second = forks.run(*command, cwd=tmp_path, **lockless)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0
    assert process.communicate()
    assert second.code == 6, second.err
    assert f"process {process.pid} on " in second.err


def test_a_dead_run_is_taken_over_without_locks(forks: Forks, inputs, tmp_path, whole):
    command = apply_command(inputs, "x.npy")
    lockless = {"ops": "flock", "persist": 1, "errno": errno.ENOSYS, "at": 1}
    for after in (0.15, 0.5, 2.0):
        killed = forks.run(*command, cwd=tmp_path, send=9, after=after, **lockless)
        assert killed.code in (0, -9)
        work = tmp_path / ".y.npy.normcli-work"
        if not work.exists() or (work / "owner.json").exists():
            break
        # A marker without a name in it is nobody's to take over: killed before it could sign.
        shutil.rmtree(work)
    ended = forks.run(*command, "--overwrite", cwd=tmp_path, **lockless)
    assert ended.code == 0, ended.err
    assert outcome(tmp_path, "y") == whole(command)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        # By turns: each error of either kind is in the fast cut for one of them.
        pytest.param(kind, name, marks=[] if (i + j) % 2 == 0 else [pytest.mark.slow])
        for i, kind in enumerate(["x.npy", "x.zarr"])
        for j, name in enumerate(["EXDEV", "ENOTEMPTY", "EACCES", "EROFS", "ESTALE"])
    ],
)
def test_renaming_fails(forks: Forks, inputs, tmp_path, whole, kind, name):
    """An earlier output stays with its companions, and the next run ends what this one did."""
    command = apply_command(inputs, kind, "--overwrite")
    assert forks.run(*command, "--epsilon", "0.5", cwd=tmp_path).code == 0
    before = outcome(tmp_path, "y")
    for number in (1, 2, 3):
        failed = forks.run(
            *command,
            cwd=tmp_path,
            at=number,
            errno=getattr(errno, name),
            ops="rename",
            match=f"y{Path(kind).suffix}",
            persist=1,
        )
        assert failed.code == 5, failed.err
        assert "could not be written: " in failed.err
        left = outcome(tmp_path, "y")
        assert partly(left, before) or partly(left, whole(command))
    assert outcome(tmp_path, "y")
    ended = forks.run(*command, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert outcome(tmp_path, "y") == whole(command)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("length", "code"), [(180, 0), (205, 0), (236, 0), (249, 5), (300, 5), (5000, 5)]
)
def test_long_names(forks: Forks, inputs, tmp_path, length, code):
    """A name may be 255 bytes long, with the 15 of its companions' suffixes."""
    name = "y" * (length - 4) + ".npy"
    ended = forks.run("apply", source(inputs, "x.npy"), "-o", name, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert hidden(tmp_path) == []
    if code:
        assert "File name too long" in ended.err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", ["missing", "file", "unwritable"])
def test_there_is_no_such_folder(forks: Forks, inputs, tmp_path, make):
    folder = tmp_path / "out"
    if make == "file":
        folder.write_text("")
    elif make == "unwritable":
        folder.mkdir()
        folder.chmod(0o555)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write anywhere")
    ended = forks.run("apply", source(inputs, "x.npy"), "-o", "out/y.npy", cwd=tmp_path)
    assert ended.code == 5, ended.err
    assert "measuring" not in ended.err


def test_what_another_version_did_is_not_continued(forks: Forks, inputs, tmp_path, whole):
    """What another version did is done again, and that is said."""
    command = apply_command(inputs, "x.npy")
    for change in ("settings", "format", "text"):
        folder = tmp_path / change
        folder.mkdir()
        faulty = forks.run(*command, cwd=folder, at=3, signal=9, match="journal", ops="write")
        assert faulty.code == -9
        edit(folder / ".y.npy.normcli-work" / "journal", change)
        ended = forks.run(*command, cwd=folder)
        assert ended.code == 0, ended.err
        assert "continuing" not in ended.err
        assert ("begins afresh" in ended.err) == (change != "text"), ended.err
        assert outcome(folder, "y") == whole(command)


def edit(journal: Path, change: str) -> None:
    """Make a journal one of another version, or damage its first line."""
    import zlib

    first, *others = journal.read_bytes().splitlines(keepends=True)
    if change == "text":
        journal.write_bytes(b"x" + b"".join([first, *others])[1:])
        return
    head = json.loads(first[9:])
    if change == "settings":
        head["settings"]["version"] = "0.0.1"
    else:
        head["normcli-journal"] = 99
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    journal.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text) + b"".join(others))
