"""Runs our work and a peer's alternately, and puts the ratios into one table.

Ratios, not seconds, are the result: both sides run in the same process, on the same data, in
alternation, and the best time of each counts.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


@dataclass(frozen=True)
class Scale:
    """How large a benchmark is.

    Attributes
    ----------
    folder : Path
        Where data are made.
    nbytes : int
        Bytes of the main arrays.
    repeats : int
        Alternating runs of each side.
    threads : int
        Threads of both sides.
    """

    folder: Path
    nbytes: int
    repeats: int
    threads: int = 2


@dataclass(frozen=True)
class Comparison:
    """One line of the table, before it is measured.

    Attributes
    ----------
    key : str
        Which figure it is.
    work : str
        What both sides do.
    ours, peer : callable
        Both sides.
    peer_name : str
        Who the peer is.
    goal : float
        Least wanted ratio of the peer's time to ours.
    nbytes : int
        Bytes that both sides go through, for the speeds.
    before : callable, optional
        Called before each timed run of either side, untimed.
    """

    key: str
    work: str
    ours: Work
    peer_name: str
    peer: Work
    goal: float
    nbytes: int
    before: Work | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table, measured.

    Attributes
    ----------
    ours, peer : str
        Both figures, with units.
    ratio : float
        What the goal is about.
    goal : str
        The goal in words.
    met : bool
        Whether it is reached.
    """

    key: str
    work: str
    ours: str
    peer_name: str
    peer: str
    ratio: float
    goal: str
    met: bool


def measure(comparison: Comparison, scale: Scale) -> Row:
    """Run both sides alternately and return the line of the table."""
    best = {"ours": float("inf"), "peer": float("inf")}
    for _ in range(scale.repeats):
        for side in ("ours", "peer"):
            if comparison.before is not None:
                comparison.before()
            gc.collect()
            begin = time.perf_counter()
            getattr(comparison, side)()
            best[side] = min(best[side], time.perf_counter() - begin)
    ratio = best["peer"] / best["ours"]
    return Row(
        comparison.key,
        comparison.work,
        speed(comparison.nbytes, best["ours"]),
        comparison.peer_name,
        speed(comparison.nbytes, best["peer"]),
        ratio,
        f">= {comparison.goal:g}",
        ratio >= comparison.goal,
    )


def limit_row(key: str, work: str, value: float, unit: str, limit: float) -> Row:
    """Return a line for a figure that has a limit instead of a peer."""
    return Row(
        key,
        work,
        f"{value:.3g} {unit}",
        "limit",
        f"{limit:g} {unit}",
        value / limit,
        "<= 1",
        value <= limit,
    )


def speed(nbytes: int, seconds: float) -> str:
    """Return a speed for people."""
    return f"{nbytes / seconds / 1e9:.2f} GB/s"


def table(rows: Iterable[Row]) -> str:
    """Return the lines as a Markdown table."""
    lines = [
        "| # | work | normcli | peer | peer's figure | ratio | goal | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        met = "yes" if row.met else "**no**"
        lines.append(
            f"| {row.key} | {row.work} | {row.ours} | {row.peer_name} | {row.peer} "
            f"| {row.ratio:.2f} | {row.goal} | {met} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Usage:
    """What one process took: CPU and wall seconds, and peak memory in MiB."""

    cpu: float
    wall: float
    peak_mib: float


def run_process(*arguments: str, environment: dict[str, str] | None = None) -> Usage:
    """Run the command line as a process of its own and return what it took.

    The child is started by a small intermediate process: Linux counts the peak memory of a
    process from before its exec, so a large parent would be counted in.
    """
    script = (
        "import os, resource, subprocess, sys, time\n"
        "begin = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)\n"
        "wall = time.perf_counter() - begin\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(done.returncode, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)\n"
        "sys.stderr.buffer.write(done.stderr)\n"
    )
    command = [sys.executable, "-c", script, sys.executable, "-m", "normcli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    code, cpu, wall, peak = done.stdout.split()
    if int(code):
        raise RuntimeError(f"normcli {' '.join(arguments)} failed: {done.stderr}")
    return Usage(float(cpu), float(wall), float(peak))
