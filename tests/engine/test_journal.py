"""What a journal gives back is what was put in, as far as its lines are whole."""

from __future__ import annotations

import errno
import json
import os
import threading

import numpy as np
import pytest

from normcli.arrays.access import StoredPart
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.grid import Grid
from normcli.domain.moments import Moments
from normcli.engine.collectors import HeldMoments, HeldSums
from normcli.engine.done import Done, done_from_json, done_to_json
from normcli.engine.events import Progress
from normcli.engine.journal import Journal, read_head
from normcli.engine.journal_file import JournalFile, pack_arrays, read_journal, unpack_arrays
from normcli.engine.run import RegionTrees
from normcli.engine.tasks import Region, RunResult
from normcli.engine.walk import Run, Walk
from normcli.errors import OutputError
from normcli.planning.plan import Pass, Plan
from normcli.publishing import output_error
from tests.engine.test_merging import some_moments


def plan(blocks: int = 8) -> Plan:
    grid = Grid((blocks * 4, 3), (4, 3))
    return Plan((Pass("measure", grid, 100, 1000, 0, "because"),), 2, 10_000, 24, "numpy", "one")


def journal(path, settings=None) -> Journal:
    return Journal(path, settings or {"a": 1}, lambda error: output_error("y.npy", error))


def moments(seed: int, shape=(3,)) -> Moments:
    rng = np.random.default_rng(seed)
    return Moments(
        rng.integers(1, 100, shape),
        rng.normal(size=shape),
        rng.uniform(size=shape),
        -rng.uniform(size=shape),
        rng.uniform(size=shape),
        rng.integers(0, 3, shape),
    )


def same(a: Moments, b: Moments) -> bool:
    return pack_arrays(a) == pack_arrays(b)


def test_arrays_keep_every_bit():
    odd = moments(1)
    odd.mean[:] = [np.inf, -0.0, 5e-324]
    back = unpack_arrays(Moments, pack_arrays(odd))
    assert same(odd, back)
    assert back.mean.flags.writeable


def test_exact_sums_keep_every_bit():
    exact = some_moments(4, (3,))
    done = Done(runs={1}, blocks=1, nodes={(0, 1, 0): ((slice(0, 3),), exact)}, written={1: exact})
    back = done_from_json(json.loads(json.dumps(done_to_json(done))))
    for found in (back.nodes[0, 1, 0][1], back.written[1]):
        assert isinstance(found, ExactMoments)
        assert pack_arrays(found) == pack_arrays(exact)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_line_is_forgotten_and_the_others_stay(tmp_path, cut):
    path = tmp_path / "journal"
    file = JournalFile(path)
    lines = [{"number": n, "text": "ü" * n} for n in range(4)]
    file.append(lines)
    file.close()
    os.truncate(path, path.stat().st_size - cut)
    found, good = read_journal(path)
    assert found == lines[: len(found)]
    assert len(found) < 4
    again = JournalFile(path, good)
    again.append([{"after": True}])
    again.close()
    assert read_journal(path)[0] == [*found, {"after": True}]


def test_what_follows_a_damaged_line_is_gone_for_good(tmp_path):
    """A new line as long as the damaged one ends where an old one begins, which must not count."""
    path = tmp_path / "journal"
    file = JournalFile(path)
    file.append([{"number": n} for n in range(3)])
    file.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, good = read_journal(path)
    assert found == [{"number": 0}]
    again = JournalFile(path, good)
    again.append([{"number": 7}])
    again.close()
    assert read_journal(path)[0] == [{"number": 0}, {"number": 7}]


def test_lines_are_synced_before_they_count(tmp_path, monkeypatch):
    """What is synced holds the lines that were appended, whole."""
    path = tmp_path / "journal"
    held: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda file: held.append(path.read_bytes()))
    file = JournalFile(path)
    file.append([{"number": 1}])
    file.append([{"number": 2}])
    file.close()
    assert [data.count(b"\n") for data in held] == [1, 2]


def test_no_link_is_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "journal").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        JournalFile(tmp_path / "journal")
    assert victim.read_text() == "mine"


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "journal"
    file = JournalFile(path)
    lines = [{"number": n} for n in range(3)]
    file.append(lines)
    file.close()
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            found = read_journal(path)[0]
            # The case of a hexadecimal digit, and the white space around it, mean nothing.
            assert found == lines[: len(found)]


def test_what_was_done_is_given_back(tmp_path):
    path = tmp_path / "journal"
    first = journal(path)
    assert (first.plan, first.changed) == (None, ())
    synced: list[StoredPart] = []
    first.begin(plan(), lambda done: synced.extend(done.parts))
    part = StoredPart("c/0/0", 48, 7)
    done = Done(runs={3}, written={3: some_moments(3, ())}, parts=[part], blocks=1)
    done.nodes[0, 3, 0] = (slice(0, 3),), moments(5)
    first.add(0, done)
    first.flush()
    assert synced == [part]
    first.close()
    second = journal(path)
    assert second.plan == plan()
    assert second.parts() == [part]
    found = second.take(0)
    assert (found.runs, found.parts, found.blocks) == ({3}, [part], 1)
    assert same(found.written[3], some_moments(3, ()))
    assert same(found.nodes[0, 3, 0][1], moments(5))
    assert read_head(path).blocks == 1
    assert not read_head(path).handover


@pytest.mark.parametrize(
    ("settings", "changed"),
    [({"a": 2}, ("a",)), ({"a": 1, "b": 0}, ("b",)), ({"b": 1}, ("a", "b"))],
)
def test_other_settings_begin_afresh(tmp_path, settings, changed):
    path = tmp_path / "journal"
    first = journal(path)
    first.begin(plan(), lambda done: None)
    first.add(0, Done(runs={1}, blocks=1))
    first.close()
    other = journal(path, settings)
    assert (other.changed, other.plan, other.take(0).runs) == (changed, None, set())
    other.begin(plan(), lambda done: None)
    other.close()
    assert journal(path, settings).take(0).runs == set()


def test_errors_of_storage_reach_the_run(tmp_path):
    first = journal(tmp_path / "journal")

    def full(done: Done) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    first.begin(plan(), full)
    first.add(0, Done(runs={1}, blocks=1))
    with pytest.raises(OutputError, match="No space left"):
        first.flush()
    with pytest.raises(OutputError, match="No space left"):
        first.add(0, Done(runs={2}, blocks=1))
    first.close()
    assert journal(tmp_path / "journal").take(0).runs == set()


def test_nothing_is_written_down_before_it_is_durable(tmp_path):
    path = tmp_path / "journal"
    first = journal(path)
    release = threading.Event()
    asked = threading.Event()

    def slow(done: Done) -> None:
        asked.set()
        release.wait(20)

    first.begin(plan(), slow)
    first.add(0, Done(runs={1}, blocks=1))
    assert asked.wait(20)
    assert len(read_journal(path)[0]) == 1
    release.set()
    first.flush()
    assert len(read_journal(path)[0]) == 2
    first.close()


@pytest.mark.parametrize("blocks", [1, 2, 7, 8, 13])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [HeldMoments, HeldSums])
def test_interrupted_trees_end_in_the_same_bits(tmp_path, blocks, seed, kind):
    """Some runs are journalled in some order, in one flush or many; the rest follows later."""
    rng = np.random.default_rng([blocks, seed])
    walk = Walk(Grid((blocks * 4, 6), (4, 3)), (1,))
    runs = list(walk.runs())
    leaves = {
        run.number: [
            Region(
                run.first + i,
                0,
                (
                    slice(
                        3 * ((run.first + i) // walk.ranks), 3 + 3 * ((run.first + i) // walk.ranks)
                    ),
                ),
                some_moments(run.first + i, (3,)),
            )
            for i in range(run.count)
        ]
        for run in runs
    }

    def result(run: Run) -> RunResult:
        return RunResult(run, Progress(run.count, 1, 0), tuple(leaves[run.number]))

    whole = kind((6,))
    trees = RegionTrees(walk, whole)
    for run in runs:
        trees.add(result(run))

    order = list(rng.permutation(len(runs)))
    stop = int(rng.integers(0, len(runs) + 1))
    path = tmp_path / "journal"
    first = journal(path)
    first.begin(plan(), lambda done: None)
    trees = RegionTrees(walk, kind((6,)))
    for position in order[:stop]:
        done = trees.add(result(runs[position]))
        done.runs.add(runs[position].number)
        first.add(0, done)
        if rng.integers(2):
            first.flush()
    first.close()

    found = journal(path).take(0)
    assert found.runs == {runs[position].number for position in order[:stop]}
    again = kind((6,))
    trees = RegionTrees(walk, again)
    trees.restore(found)
    for position in order[stop:]:
        trees.add(result(runs[position]))
    if kind is HeldMoments:
        assert same(again.moments, whole.moments)
    else:
        assert same(again.sums.canonical(), whole.sums.canonical())
