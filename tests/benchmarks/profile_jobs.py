"""Where the time of three typical jobs goes: ``python -m tests.benchmarks.profile_jobs``.

A thread looks at the Python stacks of all other threads every 2 ms and counts what each of them is
doing. Reading, decoding, the kernels, encoding, writing and syncing let go of the interpreter lock,
so looks are not bound to the moments between them. Threads that wait for work are not counted, and
each look is shared out among the threads that are busy at it, so that shares are parts of the
elapsed time. What zarrs does on threads of its own counts for the thread that asked for it.
"""

from __future__ import annotations

import argparse
import linecache
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import normcli
from tests.benchmarks.files import LAYOUT, Files
from tests.benchmarks.harness import Scale

INTERVAL = 0.002

KINDS = (
    "reading bytes",
    "decoding",
    "reading and decoding in zarrs",
    "measuring and transforming",
    "encoding",
    "checksums",
    "writing",
    "syncing to disk",
    "copying, planning, scheduling",
)

# The innermost frame that one of these describes tells the kind: the end of its file's name, the
# function (empty for any), and a word of the line that it is at (empty for any).
MARKS = (
    ("publishing/draft.py", "_sync", "", "syncing to disk"),
    ("", "", "os.fsync(", "syncing to disk"),
    ("", "", "os.preadv(", "reading bytes"),
    ("arrays/checksums.py", "", "", "checksums"),
    ("", "", "os.pwrite", "writing"),
    ("zarr/storage/_local.py", "_get", "", "reading bytes"),
    ("hdf5_disk.py", "_try", "", "writing"),
    ("hdf5_spool.py", "", "", "writing"),
    ("zarr/codecs/blosc.py", "_decode_sync", "", "decoding"),
    ("zarr/codecs/blosc.py", "_encode_sync", "", "encoding"),
    ("zarrs/pipeline.py", "", "", "reading and decoding in zarrs"),
    ("zarr_chunk_form.py", "decode", "", "decoding"),
    ("zarr_chunk_form.py", "encode", "", "encoding"),
    ("zarr_codecs.py", "", "", "decoding"),
    ("hdf5_chunks.py", "_decode", "", "decoding"),
    ("hdf5_encode.py", "encode", "", "encoding"),
    ("hdf5_assembly.py", "", "write_direct_chunk", "writing"),
    ("/engine/measuring.py", "", "", "measuring and transforming"),
    ("/engine/tasks.py", "", "compute.", "measuring and transforming"),
)

# Innermost frames of threads that wait for others.
WAITING = (
    ("threading.py", ("wait", "join", "_wait_for_tstate_lock")),
    ("queue.py", ("get",)),
    ("selectors.py", ("select",)),
    ("concurrent/futures/thread.py", ("_worker",)),
    ("dask/local.py", ("queue_get",)),
)


def main() -> None:
    """Make the arrays, run the jobs and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profile_jobs")
    parser.add_argument("--mib", type=int, default=512, help="size of the arrays")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each job")
    parser.add_argument("--folder", default="bench-data", help="where data are made")
    options = parser.parse_args()
    folder = Path(options.folder)
    (folder / "out").mkdir(parents=True, exist_ok=True)
    print(profile_table(Scale(folder, options.mib << 20, options.repeats)))


def profile_table(scale: Scale) -> str:
    """Return the shares of each job as a Markdown table."""
    names, columns = [], []
    for name, job in jobs(scale):
        names.append(name)
        columns.append(shares(job, Files(scale).clear, scale.repeats))
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for kind in KINDS:
        cells = (f"{column[kind]:.0%}" if kind in column else "" for column in columns)
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines.append(f"| seconds | {' | '.join(f'{c.seconds:.2f}' for c in columns)} |")
    lines.append(f"| threads at work | {' | '.join(f'{c.threads:.1f}' for c in columns)} |")
    return "\n".join(lines)


def jobs(scale: Scale) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the names and the work of the jobs."""
    files = Files(scale)
    npy, gzip, lz4 = str(files.npy()), f"{files.gzip()}/x", str(files.lz4())

    def apply(path: str, output: str, **options: object) -> object:
        return normcli.apply(path, str(files.out(output)), stats_out=False, **options, **LAYOUT)

    yield "`fit`, NPY", lambda: normcli.fit(npy, **LAYOUT)
    yield "`fit`, blosc-lz4 Zarr", lambda: normcli.fit(lz4, **LAYOUT)
    stats = normcli.fit(gzip, **LAYOUT)
    yield "`apply --stats`, gzip HDF5", lambda: apply(gzip, "p.h5", stats=stats)
    lz4_stats = normcli.fit(lz4, **LAYOUT)
    yield "`apply --stats`, blosc-lz4 Zarr", lambda: apply(lz4, "p.zarr", stats=lz4_stats)
    yield "`apply` in two passes, blosc-lz4 Zarr", lambda: apply(lz4, "p.zarr")


class Shares(dict[str, float]):
    """Parts of the elapsed time, the best time of a run, and how many threads were busy."""

    seconds: float = 0.0
    threads: float = 0.0


def shares(job: Callable[[], object], before: Callable[[], None], repeats: int) -> Shares:
    """Run a job (once more, to warm up) and return where its threads were seen."""
    before()
    job()
    parts: Counter[str] = Counter()
    busy = looks = 0
    best = float("inf")
    running, done = threading.Event(), threading.Event()

    def look() -> None:
        nonlocal busy, looks
        mine = threading.get_ident()
        while not done.wait(INTERVAL):
            if not running.is_set():
                continue
            frames = [frame for thread, frame in sys._current_frames().items() if thread != mine]
            kinds = [kind for frame in frames if (kind := kind_of(frame)) is not None]
            looks += bool(kinds)
            busy += len(kinds)
            for kind in kinds:
                parts[kind] += 1 / len(kinds)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(repeats):
            before()
            running.set()
            begin = time.perf_counter()
            job()
            best = min(best, time.perf_counter() - begin)
            running.clear()
    finally:
        done.set()
        watcher.join()
    result = Shares({kind: part / max(1, looks) for kind, part in parts.items()})
    result.seconds, result.threads = best, busy / max(1, looks)
    return result


def kind_of(frame: FrameType | None) -> str | None:
    """Return what a thread with this innermost frame is doing; None where it waits for work."""
    assert frame is not None
    innermost = (frame.f_code.co_filename.rpartition("lib/")[2], frame.f_code.co_name)
    if any(innermost[0].endswith(file) and innermost[1] in names for file, names in WAITING):
        return None
    if innermost[0].endswith("concurrent/futures/thread.py"):
        return "reading and decoding in zarrs"  # the one call that has no Python frame of its own
    at: FrameType | None = frame
    while at is not None:
        file, function = at.f_code.co_filename, at.f_code.co_name
        # A frame that is being entered has no line yet.
        line = linecache.getline(file, at.f_lineno or 0)
        for end, name, word, kind in MARKS:
            if file.endswith(end) and name in ("", function) and word in line:
                return kind
        at = at.f_back
    return "copying, planning, scheduling"


if __name__ == "__main__":
    main()
