"""One run at a time owns an output; a dead owner keeps nobody away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normcli.errors import TransientError
from normcli.publishing import Workplace, work_folder

HOLD = """
import sys, time
from normcli.publishing import Workplace
place = Workplace.of(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "y.npy")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_told_who_owns_the_output(tmp_path, holder):
    with pytest.raises(TransientError, match=f"another run: process {holder.pid} on .*, since 20"):
        Workplace.of(tmp_path / "y.npy").acquire()
    other = Workplace.of(tmp_path / "z.npy").acquire()
    other.remove()


def test_a_killed_owner_is_succeeded_and_its_files_stay(tmp_path, holder):
    (work_folder(tmp_path / "y.npy") / "journal").write_text("kept")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    place = Workplace.of(tmp_path / "y.npy").acquire()
    assert json.loads((place.folder / "owner.json").read_text())["pid"] == os.getpid()
    assert (place.folder / "journal").read_text() == "kept"
    place.remove()
    assert os.listdir(tmp_path) == []


def test_one_of_many_wins_and_the_folder_is_gone_in_the_end(tmp_path):
    script = """
import sys, time
from normcli.errors import TransientError
from normcli.publishing import Workplace
time.sleep(max(0, float(sys.argv[2]) - time.time()))
for _ in range(200):
    try:
        place = Workplace.of(sys.argv[1]).acquire()
    except TransientError:
        continue
    mark = place.folder / "mine"
    assert not mark.exists(), "two owners at once"
    mark.touch()
    time.sleep(0.0005)
    mark.unlink()
    place.remove()
"""
    start = str(time.time() + 1.0)
    command = [sys.executable, "-c", script, str(tmp_path / "y.npy"), start]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    told = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(told)
    assert os.listdir(tmp_path) == []


def test_names_of_every_length_have_a_work_folder(tmp_path):
    place = Workplace.of(tmp_path / ("x" * 250 + ".npy")).acquire()
    place.remove()
    assert work_folder("a/y.npy").name == ".y.npy.normcli-work"


def test_a_link_in_place_of_the_work_folder_is_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    work_folder(tmp_path / "y.npy").symlink_to(victim)
    with pytest.raises(Exception, match="symbolic link"):
        Workplace.of(tmp_path / "y.npy").acquire()
    assert os.listdir(victim) == []


def test_the_lock_stays_while_what_it_guards_is_removed(tmp_path):
    place = Workplace.of(tmp_path / "y.npy").acquire()
    (place.folder / "draft.npy").touch()
    place.clear()
    assert sorted(os.listdir(place.folder)) == ["lock", "owner.json"]
    with pytest.raises(TransientError):
        Workplace.of(tmp_path / "y.npy").acquire()
    place.remove()
