"""Outputs continued after their writer was killed, and what the parts of each output promise."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli.arrays.access import StoredPart
from normcli.arrays.opening import make_sink, open_source
from normcli.arrays.stream import NpyStreamSink
from normcli.domain.array_info import ArrayInfo
from normcli.errors import OutputError, UsageError

from .outputs import F4, OUTPUTS, SHAPE, VALUES, blocks, make, tree
from .samples import whole

ROOT = Path(__file__).parents[2]

# Writes some blocks, tells of them as a journal would, then dies in the middle of another one.
WRITER = """
import json, os, signal, sys, threading
from normcli.arrays.opening import make_sink
from tests.arrays.outputs import OUTPUTS, VALUES, blocks
text, info = OUTPUTS[sys.argv[1]]
sink = make_sink(text, {"": info})
sink.create()
several = blocks(info)
for block in several[: int(sys.argv[2])]:
    parts = sink.write("", block, VALUES[block.slices])
    sink.sync(parts)
    print(json.dumps([[p.key, p.nbytes, p.crc32c] for p in parts]), flush=True)
def go_on():
    while True:
        for block in several:
            sink.write("", block, VALUES[block.slices])
threads = [threading.Thread(target=go_on) for _ in range(3)]
for thread in threads:
    thread.start()
threads[0].join(float(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path, case: str, count: int, seconds: float = 0.05) -> list[StoredPart]:
    """Have a process write `count` blocks and more, and die; return the parts it told of."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, case, str(count), str(seconds)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == -9, done.stderr
    return [StoredPart(*part) for line in done.stdout.splitlines() for part in json.loads(line)]


@pytest.mark.parametrize("case", OUTPUTS)
class TestEveryOutput:
    def test_is_continued_after_kill_9_with_the_same_bytes(self, tmp_path, case):
        (tmp_path / "whole").mkdir()
        expected = tree(make(tmp_path / "whole", case, manifest=False))
        text, info = OUTPUTS[case]
        several = blocks(info)
        parts = killed(tmp_path, case, len(several) // 2)
        assert len({part.key for part in parts}) == len(parts)
        sink = make_sink(str(tmp_path / text), {"": info})
        assert sink.resumable
        assert sink.resume(parts)
        for block in several[len(several) // 2 :]:
            parts += sink.write("", block, VALUES[block.slices])
        sink.annotate({"a": 1})
        parts += sink.seal()
        sink.publish()
        assert tree(Path(sink.name)) == expected
        assert sum(part.nbytes for part in parts) == sum(map(len, expected.values()))
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_is_sealed_again_after_a_kill_between_seal_and_publish(self, tmp_path, case):
        text, info = OUTPUTS[case]
        sink = make_sink(str(tmp_path / text), {"": info})
        sink.create()
        parts = [p for b in blocks(info) for p in sink.write("", b, VALUES[b.slices])]
        sink.annotate({"a": 1})
        first = sink.seal()
        again = make_sink(str(tmp_path / text), {"": info})
        assert again.resume(parts)
        again.annotate({"a": 1})
        assert again.seal() == first
        again.publish()
        np.testing.assert_array_equal(
            open_source(text_in(tmp_path, text)).read(whole(SHAPE)), VALUES
        )

    def test_a_part_that_is_not_there_is_noticed(self, tmp_path, case):
        text, info = OUTPUTS[case]
        sink = make_sink(str(tmp_path / text), {"": info})
        assert not sink.resume([])
        sink.create()
        parts = sink.write("", blocks(info)[0], VALUES[blocks(info)[0].slices])
        sink.close()
        (part, *_) = parts
        fresh = make_sink(str(tmp_path / text), {"": info})
        assert fresh.resume(parts)
        for wrong in (
            StoredPart(part.key + "7", part.nbytes, part.crc32c),
            StoredPart(part.key, part.nbytes + 1, part.crc32c),
            StoredPart("../x", part.nbytes, part.crc32c),
            StoredPart("", 0, 0),
        ):
            assert not make_sink(str(tmp_path / text), {"": info}).resume([*parts, wrong])
        fresh.discard()
        assert list(tmp_path.iterdir()) == []

    def test_the_draft_of_another_array_is_not_taken_up(self, tmp_path, case):
        text, info = OUTPUTS[case]
        sink = make_sink(str(tmp_path / text), {"": info})
        sink.create()
        parts = sink.write("", blocks(info)[0], VALUES[blocks(info)[0].slices])
        sink.close()
        other = ArrayInfo(
            (*SHAPE[:-1], SHAPE[-1] * 2),
            F4,
            info.chunks,
            info.shards,
            storage=info.storage,
            codecs=info.codecs,
        )
        assert not make_sink(str(tmp_path / text), {"": other}).resume(
            [StoredPart(p.key, p.nbytes + 4, p.crc32c) for p in parts]
        )

    def test_writing_twice_leaves_the_same_bytes_and_parts(self, tmp_path, case):
        (tmp_path / "once").mkdir()
        expected = tree(make(tmp_path / "once", case, manifest=False))
        text, info = OUTPUTS[case]
        sink = make_sink(str(tmp_path / text), {"": info})
        sink.create()
        writers = [sink, pickle.loads(pickle.dumps(sink))]
        jobs = [(number % 2, block) for block in blocks(info) for number in range(4)]
        with ThreadPoolExecutor(6) as pool:
            found = list(
                pool.map(lambda job: writers[job[0]].write("", job[1], VALUES[job[1].slices]), jobs)
            )
        parts = {part for written in found for part in written}
        sink.sync(parts)
        assert len(parts) == len({part.key for part in parts})
        sink.annotate({"a": 1})
        sink.seal()
        sink.publish()
        assert tree(Path(sink.name)) == expected


def text_in(folder: Path, text: str) -> str:
    return str(folder / text)


@pytest.mark.slow
@pytest.mark.parametrize("case", OUTPUTS)
@pytest.mark.parametrize("trial", range(0, 8, 2))
def test_killed_again_and_again(tmp_path, case, trial):
    text, info = OUTPUTS[case]
    several = blocks(info)
    count = trial * len(several) // 8
    parts = killed(tmp_path, case, count, 0.01 * trial)
    sink = make_sink(str(tmp_path / text), {"": info})
    assert sink.resume(parts)
    for block in several[count:]:
        sink.write("", block, VALUES[block.slices])
    sink.seal()
    sink.publish()
    np.testing.assert_array_equal(open_source(str(tmp_path / text)).read(whole(SHAPE)), VALUES)


@pytest.mark.parametrize("case", ["hdf5_gzip", "hdf5_lzf", "zarr_2", "zarr_3", "zarr_sharded"])
def test_a_chunk_that_was_never_written_is_not_published(tmp_path, case):
    text, info = OUTPUTS[case]
    sink = make_sink(str(tmp_path / text), {"": info})
    sink.create()
    for block in blocks(info)[1:]:
        sink.write("", block, VALUES[block.slices])
    with pytest.raises(OutputError, match=r"3 of 4|7 of 8"):
        sink.seal()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_record_is_passed_over_and_a_changed_one_is_told(tmp_path):
    text, info = OUTPUTS["hdf5_gzip"]
    sink = make_sink(str(tmp_path / text), {"": info})
    sink.create()
    for block in blocks(info):
        sink.write("", block, VALUES[block.slices])
    sink.close()
    (spool,) = (tmp_path / ".x.h5.normcli-work").glob("*.spool-*")
    data = spool.read_bytes()
    for end in range(len(data) - 1, len(data) - 200, -7):
        spool.write_bytes(data[:end])
        with pytest.raises(OutputError, match="7 of 8"):
            sink.seal()
    spool.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(OutputError, match="not what was written"):
        sink.seal()
    # The same chunk written again takes the place of the changed one.
    last = blocks(info)[-1]
    sink.write("", last, VALUES[last.slices])
    sink.seal()
    sink.publish()
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["data"][...], VALUES)


def test_a_pipe_is_not_continued():
    import io

    sink = NpyStreamSink(io.BytesIO(), {"": ArrayInfo((3,), F4)})
    assert not sink.resumable
    assert not sink.resume([])


class TestHdf5Version:
    @pytest.mark.parametrize("chunks", [None, (4, 6, 5)])
    @pytest.mark.parametrize(("version", "superblock"), [("1.8", 0), ("1.10", 3), (None, 3)])
    def test_decides_the_format(self, tmp_path, version, superblock, chunks):
        info = ArrayInfo(SHAPE, F4, chunks=chunks, storage="hdf5")
        sink = make_sink(str(tmp_path / "x.h5"), {"": info}, hdf5_version=version)
        sink.create()
        for block in blocks(info):
            sink.write("", block, VALUES[block.slices])
        sink.seal()
        sink.publish()
        # The byte after the signature is the version of the superblock, which readers ask first.
        assert (tmp_path / "x.h5").read_bytes()[8] == superblock
        with h5py.File(tmp_path / "x.h5") as file:
            np.testing.assert_array_equal(file["data"][...], VALUES)

    def test_is_refused_elsewhere(self, tmp_path):
        with pytest.raises(UsageError, match="no HDF5"):
            make_sink(str(tmp_path / "x.npy"), {"": ArrayInfo(SHAPE, F4)}, hdf5_version="1.8")
        with pytest.raises(UsageError, match=r"version 1\.9"):
            make_sink(str(tmp_path / "x.h5"), {"": ArrayInfo(SHAPE, F4)}, hdf5_version="1.9")
