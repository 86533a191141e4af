"""What a person sees, on standard error: progress, messages, tables. rich lives here."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from normcli.cli.faults import Fault, fault_lines, wants_json, warning_json
from normcli.cli.summaries import VERBS, plan_rows, report_rows
from normcli.cli.texts import counted, duration, printable, size
from normcli.engine.events import Observer, Progress

if TYPE_CHECKING:
    from rich.console import Console

    from normcli.engine.report import Report
    from normcli.planning.plan import Pass, Plan

# In a log, a line of progress this often; and this often where --progress asks for it.
LOG_SECONDS = 10.0
EAGER_LOG_SECONDS = 1.0

# A log has no width: lines stay whole.
_LOG_WIDTH = 10_000
_NARROWEST = 60


class Screen(Observer):
    """Tells of a run on standard error; where that is lost, the run goes on untold.

    Parameters
    ----------
    quiet, verbose : bool
        Only errors; or more than usual.
    progress : bool or None
        Whether to tell of progress: by a live bar on a terminal, by lines in a log. None does so
        too, but seldom in a log.
    """

    def __init__(
        self, quiet: bool = False, verbose: bool = False, progress: bool | None = None
    ) -> None:
        self.console = _console(sys.stderr)
        self.quiet = quiet
        self.verbose = verbose
        self.as_json = wants_json()
        self.terminal = _is_terminal(sys.stderr)
        self.told = progress is not False and not quiet
        self.live = self.told and self.terminal and not self.console.is_dumb_terminal
        self._log_seconds = EAGER_LOG_SECONDS if progress else LOG_SECONDS
        self._heart: threading.Event | None = None
        self._moved = 0.0
        self._bar: Any = None
        self._task: Any = None
        self._pass: Pass | None = None
        self._begin = self._spoken = 0.0
        self._read = self._earlier = 0
        self._title = ""
        self._kept: tuple[int, int] | None = None

    def note(self, message: str) -> None:
        """Say something useful."""
        if not self.quiet:
            self._say(f"normcli: {message}")

    def warn(self, message: str, hint: str | None = None) -> None:
        """Say something that may be wrong."""
        if self.quiet:
            return
        if self.as_json:
            self._write(warning_json(message, hint))
        else:
            self._say(f"normcli: warning: {message}", "yellow")
            if hint:
                self._say(f"Hint: {hint}")

    def error(self, fault: Fault) -> None:
        """Say why a command failed, in one line and a hint, or as JSON."""
        self._stop()
        if self.as_json:
            self._write(replace(fault, kept=self._kept).as_json())
            return
        message, *hints = fault_lines(fault)
        self._say(message, "bold red")
        for line in hints:
            self._say(line)
        if self._kept is not None:
            done, total = self._kept
            self._say(
                f"normcli: {done} of {counted(total, 'block')} are kept; "
                "the same command continues, and normcli clean removes them"
            )

    def kept(self, blocks: int, total: int) -> None:
        """Remember what an early end leaves, for `error`."""
        self._kept = blocks, total

    @property
    def keeps(self) -> bool:
        """Whether something was kept for the same command."""
        return self._kept is not None

    def state_line(self) -> str:
        """Return where the run is, for whoever asks in the middle of it."""
        if self._pass is None:
            return "normcli: nothing has been read yet"
        return f"normcli: {self._title}: {self._state()}"

    def planned(self, plan: Plan) -> None:
        """Tell the plan, where more is wanted."""
        if self.verbose and not self.quiet:
            self.table("plan", plan_rows(plan))

    def started(self, work: Pass, position: int, total: int) -> None:
        """Begin a bar, or a line in a log."""
        self._pass, self._read, self._earlier = work, 0, 0
        self._begin = self._spoken = self._moved = time.monotonic()
        self._title = VERBS[work.kind] + (f" (pass {position} of {total})" if total > 1 else "")
        if self.live:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[state]}"),
                console=self.console,
                transient=True,
                redirect_stdout=False,
            )
            self._task = self._bar.add_task(
                self._title, total=max(work.bytes_read, 1), state=self._state()
            )
            self._bar.start()
        if self.told:
            self._heart = threading.Event()
            threading.Thread(target=self._beat, args=(self._heart,), daemon=True).start()

    def advanced(self, progress: Progress) -> None:
        """Move the bar, or speak now and then."""
        self._read += progress.bytes_read
        self._moved = time.monotonic()
        if progress.resumed:
            self._earlier = progress.bytes_read
            assert self._pass is not None
            self.note(
                f"continuing: {progress.blocks} of {counted(len(self._pass.grid), 'block')} "
                "were done by an interrupted run"
            )
        if self._bar is not None:
            self._bar.update(self._task, completed=self._read, state=self._state())
        elif self.told and time.monotonic() - self._spoken >= self._log_seconds:
            self._spoken = time.monotonic()
            self._say(f"normcli: {self._title}: {self._state()}")

    def _beat(self, stopped: threading.Event) -> None:
        """Say that the run lives where no block ends for long, as on slow storage."""
        while not stopped.wait(self._log_seconds):
            quiet = time.monotonic() - self._moved
            if quiet < self._log_seconds:
                continue
            state = f"{self._state()}, no block ended for {duration(quiet)}"
            bar = self._bar
            if bar is not None:
                bar.update(self._task, state=state)
            elif self.told and not stopped.is_set():
                self._spoken = time.monotonic()
                self._say(f"normcli: {self._title}: {state}")

    def finished(self, seconds: float) -> None:
        """End the bar; leave one line."""
        had_bar = self._bar is not None
        self._stop()
        if self.told and (self.verbose or not had_bar):
            self._say(f"normcli: {self._title}: {self._state()}")

    def failed(self) -> None:
        """Take the bar away."""
        self._stop()

    def report(self, report: Report) -> None:
        """Show the summary of a run."""
        if not self.quiet:
            self.table(f"{report.command} done", report_rows(report))

    def table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        """Show names and values in two columns."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(f"  {printable(name)}"), Text(printable(value)))
        self._say(f"normcli: {title}", "bold")
        for line in _lines(self.console, grid):
            self._write(line)

    def _say(self, text: str, style: str | None = None) -> None:
        self._write(printable(text), style)

    def _write(self, content: Any, style: str | None = None) -> None:
        try:
            self.console.print(content, style=style, soft_wrap=True)
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """Go on without standard error: its reader is gone, or its disk is full."""
        self.quiet, self.told, self.live = True, False, False
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def _state(self) -> str:
        assert self._pass is not None
        seconds = max(time.monotonic() - self._begin, 1e-9)
        total = max(self._pass.bytes_read, 1)
        speed = (self._read - self._earlier) / seconds
        text = f"{100 * self._read // total} %, {size(self._read)} at {size(speed)}/s"
        if self._read < total and speed:
            return f"{text}, {duration((total - self._read) / speed)} left"
        return f"{text}, {duration(seconds)}"

    def _stop(self) -> None:
        if self._heart is not None:
            self._heart.set()
            self._heart = None
        bar, self._bar = self._bar, None
        if bar is not None:
            try:
                bar.stop()
            except (OSError, ValueError):
                self._lose()


def table_text(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for standard output, for commands whose result is a table.

    Parameters
    ----------
    headers : sequence of str
        Names of the columns; empty ones leave the line of names out.
    rows : iterable of sequence of str
        Cells.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    model = _console(sys.stdout)
    console = Console(
        file=io.StringIO(),
        width=model.width,
        force_terminal=model.is_terminal,
        color_system=model.color_system,  # type: ignore[arg-type]
    )
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    for line in _lines(console, table):
        console.print(line, soft_wrap=True)
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def _lines(console: Console, table: Any) -> list[Any]:
    """Return a table as lines, without the blanks that pad the last cells."""
    lines = console.render_lines(table, pad=False)
    from rich.text import Text

    texts = []
    for line in lines:
        text = Text.assemble(*((s.text, s.style or "") for s in line if not s.control))
        text.rstrip()
        texts.append(text)
    return texts


def _console(stream: Any) -> Console:
    """Return a console without markup, and without colours under ``NO_COLOR``."""
    from rich.console import Console

    class Quiet(Console):
        """Leaves a closed pipe to its caller; rich would end the process."""

        def on_broken_pipe(self) -> None:
            raise

    console = Quiet(
        file=io.StringIO() if stream is None else stream,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )
    # rich leaves columns out where a terminal is too narrow for them.
    console.width = max(console.width, _NARROWEST) if _is_terminal(stream) else _LOG_WIDTH
    return console


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
