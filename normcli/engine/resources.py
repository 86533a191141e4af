"""How much memory and how many CPUs this process may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from normcli.errors import OutputError, UsageError
from normcli.planning.memory import MIB
from normcli.process_limits import free_address_space, thread_stack

# Frames of Python, and what blocks take that are in no budget.
_BESIDE_STACKS = 32 * MIB

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[_letter] = _UNITS[_letter + "ib"] = 1024**_power
    _UNITS[_letter + "b"] = 1000**_power


def parse_memory(text: str) -> int:
    """Return the bytes that ``2GiB``, ``512M`` or ``1e9`` mean.

    A bare letter counts in powers of 1024, as in SLURM; ``GB`` is 10**9 and ``GiB`` 2**30.

    Raises
    ------
    UsageError
        When it is no size, or not above 0.
    """
    digits = text.strip().lower()
    unit = ""
    while digits and not digits[-1].isdigit() and digits[-1] != ".":
        unit = digits[-1] + unit
        digits = digits[:-1]
    try:
        size = float(digits) * _UNITS[unit.strip()]
    except (ValueError, KeyError):
        size = -1.0
    if not 0 < size < 2**60:
        raise UsageError(f"{text!r} is no size of memory.", "For example: 2GiB, 512MiB, 1e9.")
    return int(size)


def default_memory(environment: Mapping[str, str] = os.environ) -> int:
    """Return the default budget in bytes.

    It is the smallest of: half of the free memory, half of the address space that ``ulimit -v``
    leaves, three quarters of the control group's limit, and three quarters of SLURM's allocation.
    The rest is for the program itself.
    """
    import psutil

    limits = [psutil.virtual_memory().available // 2]
    space = free_address_space()
    if space is not None:
        limits.append(space // 2)
    group = cgroup_memory()
    if group is not None:
        limits.append(group * 3 // 4)
    allocated = slurm_memory(environment)
    if allocated is not None:
        limits.append(allocated * 3 // 4)
    return max(64 * MIB, min(limits))


def require_room_for_threads(count: int) -> None:
    """Refuse to begin threads where the address space that is left may not hold them.

    A thread that cannot have memory may die before its first instruction, or with a result in its
    hands, and whoever waits for it waits for ever: 1 of 150 runs did between 440 and 560 MiB, and
    2 of 3 just below what they needed.

    Raises
    ------
    OutputError
        When less is left than the stacks take and 32 MiB, as for any other want of memory.
    """
    space = free_address_space()
    need = count * thread_stack() + _BESIDE_STACKS
    if space is not None and space < need:
        raise OutputError(
            f"The limit of address space leaves {space / MIB:.0f} MiB, and the threads want "
            f"{need / MIB:.0f} MiB.",
            "Raise the limit (ulimit -v), or take fewer workers with -j.",
        )


def slurm_memory(environment: Mapping[str, str]) -> int | None:
    """Return the bytes that SLURM granted to this task's node, or None outside of a job."""
    per_node = environment.get("SLURM_MEM_PER_NODE", "")
    if per_node.isdigit() and int(per_node):
        return int(per_node) * MIB
    per_cpu = environment.get("SLURM_MEM_PER_CPU", "")
    cpus = environment.get("SLURM_CPUS_ON_NODE") or environment.get("SLURM_CPUS_PER_TASK", "1")
    if per_cpu.isdigit() and int(per_cpu) and cpus.isdigit():
        return int(per_cpu) * int(cpus) * MIB
    return None


def cgroup_memory(
    root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Return the tightest memory limit of this process's control groups in bytes, or None.

    Both versions of control groups are read; a group's own limit and those of its parents hold.
    What the group uses already is mostly page cache, which the kernel gives back.
    """
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return None
    limits: list[int] = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            folder, limit = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, limit = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        place = folder / name.lstrip("/")
        for group in (place, *place.parents):
            if not group.is_relative_to(folder):
                break
            try:
                limits.append(int((group / limit).read_text()))
            except (OSError, ValueError):
                continue  # No file at the root, "max" where there is no limit.
    tightest = min(limits, default=2**63)
    # Version 1 says "no limit" with the largest number of pages.
    return tightest if tightest < 2**60 else None


def resident_memory() -> int:
    """Return the bytes of memory that this process takes."""
    import psutil

    return int(psutil.Process().memory_info().rss)
