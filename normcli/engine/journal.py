"""What a run has done, written down while it goes, so that the same command continues it.

A run is written down only after what it stored is durable: a background thread syncs the parts of
finished runs and appends their lines together, so that neither waits for the other. Moments are
written as nodes of the merge trees; a node that was merged in the meantime is never written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normcli.arrays.access import StoredPart
from normcli.domain.grid import Grid
from normcli.engine.done import Done, done_from_json, done_to_json
from normcli.engine.journal_file import JournalFile, Line, read_journal
from normcli.engine.resources import require_room_for_threads
from normcli.planning.plan import Pass, Plan

FORMAT = 1

# Makes what finished runs stored durable.
Syncer = Callable[[Done], None]

# Finished runs are written down together, this often: what the last of them left is synced while
# everybody waits (512 MiB of NPY took 0.45 s so, and 0.51 s with 0.2 s; Zarr the same with both).
# Large moments go less often, so that they take a tenth of the time at most.
SECONDS = 0.05
SHARE = 10


@dataclass(frozen=True)
class Head:
    """What a journal tells without its settings being known.

    Attributes
    ----------
    handover : bool
        Whether its run was complete but for the names of its outputs.
    outcome : dict or None
        The renames, and the report of that run.
    blocks : int
        Blocks that are done.
    """

    handover: bool
    outcome: Line | None
    blocks: int


def read_head(path: Path) -> Head:
    """Read what a journal tells to anybody."""
    lines, _ = read_journal(path)
    outcome = lines[-1].get("handover") if lines else None
    blocks = sum(int(line.get("blocks", 0)) for line in lines)
    return Head(outcome is not None, outcome, blocks)


class Journal:
    """The journal of the run that owns a work folder.

    Parameters
    ----------
    path : Path
        The file.
    settings : mapping
        Everything that decides the bits of the outcome, as JSON can hold it.
    failed : callable
        Makes the error to raise from an OSError of the journal or of syncing.

    Attributes
    ----------
    plan : Plan or None
        The plan of the interrupted run, if that had the same settings.
    changed : tuple of str
        Names of the settings in which an interrupted run differs.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        failed: Callable[[OSError], Exception],
    ) -> None:
        self._path = path
        self._settings = settings
        self._failed = failed
        self._file: JournalFile | None = None
        self._passes: dict[int, Done] = {}
        self._pending: dict[int, Done] = {}
        self._sync: Syncer = lambda done: None
        self._guard = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._closing = False
        self._error: BaseException | None = None
        self._plan: Plan | None = None
        self.plan: Plan | None = None
        self.changed: tuple[str, ...] = ()
        self.handover: Line | None = None
        self._kept = 0
        self._stopped = False
        self._load()

    def _load(self) -> None:
        lines, kept = read_journal(self._path)
        if not lines:
            return
        head = lines[0]
        earlier = head.get("settings")
        if head.get("normcli-journal") != FORMAT or not isinstance(earlier, dict):
            self.changed = ("version",)
            return
        ours = dict(self._settings)
        self.changed = tuple(
            name for name in sorted({*ours, *earlier}) if ours.get(name) != earlier.get(name)
        )
        if self.changed:
            return
        try:
            self.plan = plan_from_json(head["plan"])
            for line in lines[1:]:
                if "handover" in line:
                    self.handover = line["handover"]
                else:
                    done = done_from_json(line)
                    self._passes.setdefault(line["pass"], Done()).update(done)
        except (KeyError, TypeError, ValueError):
            self.plan, self._passes, self.handover = None, {}, None
            self.changed = ("journal",)
            return
        self._kept = kept

    def take(self, number: int) -> Done:
        """Return what an interrupted run did of pass `number`; moments are handed out once."""
        done = self._passes.get(number, Done())
        if done:
            self._passes[number] = done.light()
        return done

    def parts(self) -> list[StoredPart]:
        """Return everything that is known to be stored in the output."""
        return [part for done in self._passes.values() for part in done.parts]

    def stored_parts(self) -> list[StoredPart]:
        """Return everything that is known to be stored in the container of moments."""
        return [part for done in self._passes.values() for part in done.stored_parts]

    def forget(self) -> None:
        """Begin afresh: nothing of an interrupted run is used."""
        self.plan, self.handover, self._passes, self._kept = None, None, {}, 0

    def begin(self, plan: Plan, sync: Syncer) -> None:
        """Open the journal for this run; `sync` makes durable what finished runs stored."""
        self._sync, self._plan = sync, plan
        head = {
            "normcli-journal": FORMAT,
            "settings": dict(self._settings),
            "plan": plan_to_json(plan),
        }
        try:
            self._file = JournalFile(self._path, self._kept)
            if not self._kept:
                self._file.append([head])
        except OSError as error:
            raise self._failed(error) from error
        require_room_for_threads(1)
        thread = threading.Thread(target=self._work, name="normcli-journal", daemon=True)
        thread.start()
        self._thread = thread  # only now: what could not be started cannot be joined

    def add(self, number: int, done: Done) -> None:
        """Take what finished runs of pass `number` did; it is written down soon.

        Nodes that were taken earlier and are merged into these are dropped.
        """
        with self._guard:
            self._raise()
            pending = self._pending.setdefault(number, Done())
            for region, first, level in done.nodes:
                _drop_inside(pending.nodes, region, first, level)
            pending.update(done)
            self._guard.notify_all()

    def flush(self) -> None:
        """Return when everything that was taken is durable."""
        with self._guard:
            while (self._pending or self._busy) and self._error is None:
                self._closing = True
                self._guard.notify_all()
                self._guard.wait(0.05)
            self._closing = False
            self._raise()

    def hand_over(self, outcome: Line) -> None:
        """Note that all is done but the renames, and what the run will tell."""
        self.flush()
        assert self._file is not None
        try:
            self._file.append([{"handover": outcome}])
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write down what can still be written, and close."""
        if self._thread is not None:
            with self._guard:
                self._closing = True
                thread, self._thread = self._thread, None
                self._stopped = True
                self._guard.notify_all()
            thread.join()
        if self._file is not None:
            self._file.close()
            self._file = None

    def kept_blocks(self) -> tuple[int, int] | None:
        """Return how many blocks of how many need not be done again; None for no block."""
        if self._plan is None or not any(self._passes.values()):
            return None
        total = sum(len(work.grid) for work in self._plan.passes)
        return sum(done.blocks for done in self._passes.values()), total

    def _raise(self) -> None:
        if self._error is not None:
            error = self._error
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise error

    def _work(self) -> None:
        spent = 0.0
        while True:
            with self._guard:
                while not self._pending and not self._stopped:
                    self._guard.wait()
                wait = max(SECONDS, SHARE * spent)
                end = time.monotonic() + wait
                while not self._closing and time.monotonic() < end:
                    self._guard.wait(end - time.monotonic())
                taken, self._pending = self._pending, {}
                self._busy = bool(taken)
                stopped = self._stopped
            if taken:
                try:
                    spent = self._write(taken)
                except BaseException as error:
                    with self._guard:
                        self._error = error
            with self._guard:
                self._busy = False
                self._guard.notify_all()
                if stopped or self._error is not None:
                    return

    def _write(self, taken: dict[int, Done]) -> float:
        for done in taken.values():
            self._sync(done)
        begin = time.monotonic()
        assert self._file is not None
        self._file.append({"pass": number, **done_to_json(done)} for number, done in taken.items())
        for number, done in taken.items():
            self._passes.setdefault(number, Done()).update(done.light())
        return time.monotonic() - begin


def _drop_inside(
    nodes: dict[tuple[int, int, int], Any], region: int, first: int, level: int
) -> None:
    """Remove the nodes that were merged into a new one: one a level at most."""
    for lower in range(level):
        step = 1 << lower
        for place in range(first, first + (1 << level), step):
            if nodes.pop((region, place, lower), None) is not None:
                break


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON can hold it."""
    return asdict(plan)


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """Return the plan that `plan_to_json` took apart."""
    passes = []
    for one in values["passes"]:
        grid = Grid(*(tuple(one["grid"][name]) for name in ("shape", "block_shape", "origin")))
        passes.append(Pass(**{**one, "grid": grid}))
    return Plan(**{**values, "passes": tuple(passes)})
