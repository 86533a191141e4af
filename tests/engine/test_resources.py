"""Sizes of memory, control groups and SLURM's variables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from normcli.engine import resources
from normcli.engine.resources import cgroup_memory, default_memory, parse_memory, slurm_memory
from normcli.engine.schedulers import available_cpus
from normcli.errors import UsageError

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("1e9", 10**9),
        ("2GiB", 2 * GIB),
        ("2gib", 2 * GIB),
        (" 2 GiB ", 2 * GIB),
        ("512M", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("512MB", 512 * 10**6),
        ("1.5GiB", 3 * GIB // 2),
        ("4k", 4096),
        ("4kB", 4000),
        ("100B", 100),
        ("1TiB", 2**40),
        (".5G", GIB // 2),
    ],
)
def test_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1GiB", "GiB", "2XB", "2GiBs", "two", "1e30", "nan", "inf", "1,5GiB", "2 2G"]
)
def test_no_sizes(text):
    with pytest.raises(UsageError, match="no size of memory") as caught:
        parse_memory(text)
    assert "2GiB" in caught.value.hint


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "4G"}, None),
        ({"SLURM_MEM_PER_CPU": "1024"}, GIB),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_PER_TASK": "4"}, 4 * GIB),
        (
            {
                "SLURM_MEM_PER_CPU": "1024",
                "SLURM_CPUS_ON_NODE": "8",
                "SLURM_CPUS_PER_TASK": "4",
            },
            8 * GIB,
        ),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "2(x3)"}, None),
        ({"SLURM_MEM_PER_NODE": "2048", "SLURM_MEM_PER_CPU": "9999"}, 2 * GIB),
    ],
)
def test_slurm(environment, size):
    assert slurm_memory(environment) == size


def group(tmp_path: Path, line: str, files: dict[str, str]) -> int | None:
    proc = tmp_path / "cgroup"
    proc.write_text(line)
    root = tmp_path / "sys"
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return cgroup_memory(root, proc)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"a/b/memory.max": "max\n"}, None),
        ({"a/b/memory.max": "1073741824\n"}, GIB),
        ({"a/b/memory.max": "max\n", "a/memory.max": "536870912\n"}, GIB // 2),
        ({"a/b/memory.max": "1073741824\n", "a/memory.max": "536870912\n"}, GIB // 2),
        ({"memory.max": "268435456\n"}, GIB // 4),
        ({"other/memory.max": "1\n"}, None),
    ],
)
def test_version_2(tmp_path, files, limit):
    assert group(tmp_path, "0::/a/b\n", files) == limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory/job/memory.limit_in_bytes": "1073741824\n"}, GIB),
        ({"memory/memory.limit_in_bytes": "536870912\n"}, GIB // 2),
        # The kernel's way to say that there is no limit.
        ({"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"cpu/job/memory.limit_in_bytes": "1\n"}, None),
    ],
)
def test_version_1(tmp_path, files, limit):
    lines = "12:cpu,cpuacct:/job\n5:memory:/job\n1:name=systemd:/job\n"
    assert group(tmp_path, lines, files) == limit


def test_both_versions_and_none(tmp_path):
    lines = "5:memory:/job\n0::/job\n"
    files = {"memory/job/memory.limit_in_bytes": "1073741824", "job/memory.max": "2147483648"}
    assert group(tmp_path, lines, files) == GIB
    assert cgroup_memory(tmp_path, tmp_path / "missing") is None


def test_the_default_is_the_tightest():
    free = default_memory({})
    assert free >= 64 * MIB
    assert default_memory({"SLURM_MEM_PER_NODE": "100"}) == 75 * MIB
    assert default_memory({"SLURM_MEM_PER_NODE": "1"}) == 64 * MIB
    assert default_memory({"SLURM_MEM_PER_NODE": "999999999"}) == free or free > 64 * MIB
    assert resources.cgroup_memory() is None or resources.cgroup_memory() > 0


def test_cpus_of_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    own = available_cpus()
    assert own >= 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert available_cpus() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    assert available_cpus() == own
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert available_cpus() == own


LIMITED = """
import resource, sys
from normcli.engine.resources import default_memory, require_room_for_threads
from normcli.process_limits import address_space

default_memory()
left = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (address_space() + left, resource.RLIM_INFINITY))
print(default_memory())
require_room_for_threads(4)
"""


def under_a_limit_of(left):
    """Return what a process with so many bytes of address space left tells."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(left)], capture_output=True, text=True, timeout=60
    )
    return int(done.stdout), done.stderr


def test_the_default_fits_the_address_space():
    budget, told = under_a_limit_of(400 * MIB)
    assert 190 * MIB < budget <= 200 * MIB
    assert told == ""


def test_threads_are_not_begun_without_room_for_them():
    """Four stacks of 8 MiB, and 32 MiB."""
    assert "OutputError: The limit of address space leaves 6" in under_a_limit_of(63 * MIB)[1]
    assert under_a_limit_of(66 * MIB)[1] == ""
