"""Where a run makes its output: its lock, its journal, and what stays when it ends early."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from normcli.api.options import RunOptions
from normcli.domain.losses import Losses
from normcli.engine.done import tally_from_json
from normcli.engine.events import Observer
from normcli.engine.journal import Journal, read_head
from normcli.engine.report import Report
from normcli.errors import (
    DataPolicyError,
    InputError,
    NormcliError,
    SafetyError,
    UsageError,
)
from normcli.planning.plan import Plan
from normcli.planning.planner import Resources
from normcli.publishing import Handover, Workplace, output_error, refuse_unwritable

JOURNAL = "journal"

# After these the same command would fail in the same way, so nothing is kept for it.
FINAL = (UsageError, InputError, SafetyError, DataPolicyError)


class RunPlace:
    """The work folder of one output, owned by this run; leaving the context settles what stays.

    What an interrupted run did stays for the same command. After success, and after errors that
    the same command would meet again, nothing stays.

    Parameters
    ----------
    final : str or Path
        The file or folder that the run writes.
    run : RunOptions
        Whether it may be replaced, and whether to begin afresh.
    observer : Observer
        Is told what was found, and what stays.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced.
    TransientError
        When another run writes it.
    OutputError
        When its folder cannot be written to.
    """

    def __init__(self, final: str | Path, run: RunOptions, observer: Observer) -> None:
        self.final = Path(final)
        self._run, self._observer = run, observer
        self._workplaces = [Workplace.of(self.final)]
        self._journal: Journal | None = None
        self._stack = ExitStack()
        self._committed = False
        self.complete = False

    @property
    def folder(self) -> Path:
        """The work folder."""
        return self._workplaces[0].folder

    def room_for(self, companion: str | Path) -> Path | None:
        """Return the work folder, if drafts of `companion` can be renamed out of it."""
        same = Path(companion).parent.absolute() == self.final.parent.absolute()
        return self.folder if same else None

    @property
    def handing_over(self) -> bool:
        """Whether this run, or an earlier one, is complete but for the names of its outputs."""
        return self._committed or read_head(self.folder / JOURNAL).handover

    def __enter__(self) -> Self:
        refuse_unwritable(self.final, overwrite=True)
        self._workplaces[0].acquire()
        try:
            if self._run.restart and not self.handing_over:
                self._workplaces[0].clear()
            if not self.handing_over:
                refuse_unwritable(self.final, self._run.overwrite)
        except BaseException:
            self._leave(keep=False)
            raise
        return self

    def also(self, final: str | Path) -> None:
        """Own the work folder of another output of this run, too."""
        place = Workplace.of(final)
        place.acquire()
        self._workplaces.append(place)

    def closing(self, *things: Any) -> None:
        """Close these before the folder is let go or removed."""
        for thing in things:
            self._stack.callback(thing.close)

    def journal(self, settings: Mapping[str, Any]) -> Journal:
        """Return the journal, with what an interrupted run of the same settings did.

        Parameters
        ----------
        settings : mapping
            Everything that decides the bits of the outcome.
        """
        plain = json.loads(json.dumps(settings, default=str))
        failed = partial(_journal_failed, self.final)
        self._journal = Journal(self.folder / JOURNAL, plain, failed)
        if self._journal.changed:
            self._observer.note(
                f"an interrupted run of {self.final} had other settings "
                f"({', '.join(self._journal.changed)}), so this one begins afresh"
            )
        if self._journal.plan is None and not self.handing_over:
            for place in self._workplaces:
                place.clear()
        return self._journal

    def finish_handover(self) -> Report | None:
        """Give a complete earlier run its names; return its report where the settings are ours."""
        assert self._journal is not None
        found = self._journal.handover or read_head(self.folder / JOURNAL).outcome
        if found is None:
            return None
        Handover.from_text(found["steps"]).carry_out()
        self._observer.note(f"{self.final} was complete but for its name, which it has now")
        if self._journal.handover is None:
            self._workplaces[0].clear()
            refuse_unwritable(self.final, self._run.overwrite)
            return None
        self.complete = True
        return report_from_json(found["report"])

    def plan_again(self, resources: Resources) -> Plan | None:
        """Return the plan of the interrupted run, for as many workers as there are now.

        Raises
        ------
        UsageError
            When it does not fit a budget that was given.
        """
        plan = self._journal.plan if self._journal is not None else None
        if plan is None:
            return None
        # What that run kept in memory went with it.
        plan = replace(plan, kept_memory=0)
        for workers in (resources.workers, min(plan.workers, resources.workers), 1):
            fitting = replace(plan, workers=workers, memory_budget=resources.memory)
            if fitting.peak_memory <= resources.memory or self._run.memory is None:
                return fitting
        raise UsageError(
            f"The interrupted run of {self.final} was planned for blocks that need "
            f"{fitting.peak_memory} bytes, more than --memory {self._run.memory}.",
            "Give as much memory as before, or --restart.",
        )

    def hand_over(self, handover: Handover, report: Report) -> None:
        """Give all outputs of a complete run their names."""
        if self._journal is not None:
            # From here on the drafts stay: a line that could not be synced may be there all the
            # same, and whether it is cannot be asked of storage that fails.
            self._committed = True
            outcome = {"steps": handover.as_text(), "report": asdict(report)}
            self._journal.hand_over(outcome)
        handover.carry_out()
        self.complete = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        keep = error is not None and not isinstance(error, FINAL) and self._journal is not None
        try:
            if self._journal is not None:
                self._journal.close()
        finally:
            kept = self._journal.kept_blocks() if keep and self._journal is not None else None
            self._leave(keep=kept is not None)
            if kept is not None:
                self._observer.kept(*kept)

    def _leave(self, keep: bool) -> None:
        self._stack.close()
        for place in reversed(self._workplaces):
            if keep:
                place.release()
            else:
                place.remove()


def digest(value: Any) -> str:
    """Return a digest of anything that JSON can hold, or that has text of its own."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def report_from_json(values: Mapping[str, Any]) -> Report:
    """Return the report that `dataclasses.asdict` took apart."""
    plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    counts = {"tally": tally_from_json(values["tally"]), "losses": Losses(**values["losses"])}
    return Report(**{**plain, **counts})


def _journal_failed(final: Path, error: OSError) -> NormcliError:
    return output_error(final, error)
