"""Manifests come back as they were written, or not at all."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from normcli.arrays.access import StoredPart
from normcli.arrays.manifest import Manifest, manifest_path, read_manifest, write_manifest
from normcli.domain.array_info import ArrayInfo
from normcli.domain.moments import Moments
from normcli.errors import DataPolicyError, InputError, UsageError

PARTS = [
    StoredPart("c/1", 10, 0xFFFFFFFF),
    StoredPart("c/0", 0, 0),
    StoredPart('weird \u00e9\n"@0,0:4,4', 1 << 40, 7),
]
INSIDE = {"a/x": ArrayInfo((3, 4), np.dtype(">f4"), chunks=(2, 2), shards=(2, 4))}
SOME = Moments(*map(np.asarray, (12, 0.1, 1e300, -5e-324, 1.5, 3)))


@pytest.fixture
def path(tmp_path):
    manifest = Manifest.of("zarr", INSIDE, PARTS, {"a/x": SOME}, "1.2.3")
    found = manifest_path(tmp_path / "x.zarr")
    write_manifest(found, manifest)
    return found


def same(a: Manifest, b: Manifest) -> bool:
    return (a.container, a.arrays, a.parts, a.version) == (
        b.container,
        b.arrays,
        b.parts,
        b.version,
    ) and repr(a.written) == repr(b.written)


def test_comes_back(path):
    assert path.name == "x.zarr.manifest.jsonl"
    found = read_manifest(path)
    assert same(found, Manifest.of("zarr", INSIDE, PARTS, {"a/x": SOME}, "1.2.3"))
    assert [part.key for part in found.parts] == sorted(part.key for part in PARTS)
    assert found.nbytes == 10 + (1 << 40)
    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["format"] == "normcli-manifest"
    assert json.loads(lines[-1])["parts"] == 3
    with pytest.raises(UsageError, match="exists"):
        write_manifest(path, found)
    write_manifest(path, found, overwrite=True)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_of_nothing_and_of_parts_written_twice(tmp_path):
    nothing = Manifest.of("npy", {}, [], {"": Moments.identity(())}, "1")
    write_manifest(tmp_path / "m", nothing)
    assert read_manifest(tmp_path / "m").written[""].minimum == np.inf
    twice = Manifest.of("npy", {}, [StoredPart("a", 1, 1), StoredPart("a", 1, 2)], {}, "1")
    assert twice.parts == (StoredPart("a", 1, 2),)


def test_a_cut_is_noticed_at_every_byte(path):
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(DataPolicyError, match="not as it was written"):
            read_manifest(path)


def test_a_changed_bit_is_noticed_everywhere(path):
    data = path.read_bytes()
    expected = read_manifest(path)
    for position in range(len(data)):
        for bit in (1, 8, 64):
            changed = bytearray(data)
            changed[position] ^= bit
            path.write_bytes(changed)
            with pytest.raises((DataPolicyError, InputError)):
                read_manifest(path)
    path.write_bytes(data)
    assert same(read_manifest(path), expected)


def test_a_damaged_header_is_no_later_version(path):
    data = path.read_bytes()
    changed = data.replace(b'"version":1', b'"version":3', 1)
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(DataPolicyError, match="its header fails its checksum"):
        read_manifest(path)


def test_edited_lines_are_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    rng = random.Random(3)
    for edited in (
        lines[:1] + lines[2:],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines, lines[1]],
        [*lines[:2], *lines[1:]],
        lines[1:],
        [b"[" * 100_000 + b"\n", *lines[1:]],
        [b"x" * (1 << 20), *lines],
        [lines[0], b'{"key":"c/0","nbytes":true,"crc32c":"0"}\n', *lines[2:]],
        [lines[0], b'{"key":"c/0","nbytes":-1,"crc32c":"0"}\n', *lines[2:]],
        [rng.randbytes(200)],
    ):
        path.write_bytes(b"".join(edited))
        with pytest.raises(DataPolicyError):
            read_manifest(path)


def test_a_later_version_and_no_file(path, tmp_path):
    from normcli.arrays.checksums import crc32c
    from normcli.arrays.manifest import _hex, _line

    header = json.loads(path.read_bytes().splitlines()[0])
    del header["crc32c"]
    header["version"] = 2
    header["crc32c"] = _hex(crc32c(_line(header)))
    path.write_bytes(_line(header))
    with pytest.raises(InputError, match="version 2"):
        read_manifest(path)
    with pytest.raises(InputError, match="No such file"):
        read_manifest(tmp_path / "none")
