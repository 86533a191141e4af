"""What a person sees, on standard error: progress, messages, tables. rich lives here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from normcli.engine.events import Observer, Progress

if TYPE_CHECKING:
    from normcli.engine.report import Report
    from normcli.planning.plan import Pass, Plan

# In a log, a line of progress this often.
LOG_SECONDS = 10.0

_VERBS = {"measure": "measuring", "apply": "normalizing", "fused": "measuring and normalizing"}


class Screen(Observer):
    """Tells of a run on standard error.

    Parameters
    ----------
    quiet, verbose : bool
        Only errors; or more than usual.
    progress : bool or None
        Whether to draw a live bar; None draws one on a terminal.
    """

    def __init__(
        self, quiet: bool = False, verbose: bool = False, progress: bool | None = None
    ) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        if not self.console.is_terminal:
            # A log has no width; tables keep their lines whole.
            self.console = Console(
                stderr=True, highlight=False, markup=False, emoji=False, width=160
            )
        self.quiet = quiet
        self.verbose = verbose
        terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = (terminal if progress is None else progress) and not quiet
        self._bar: Any = None
        self._task: Any = None
        self._pass: Pass | None = None
        self._begin = self._spoken = 0.0
        self._read = 0

    def note(self, message: str) -> None:
        """Say something useful."""
        if not self.quiet:
            self._say(f"normcli: {message}")

    def warn(self, message: str, hint: str | None = None) -> None:
        """Say something that may be wrong."""
        if not self.quiet:
            self._say(f"normcli: warning: {message}", "yellow")
            if hint:
                self._say(f"Hint: {hint}")

    def error(self, message: str, hint: str | None = None) -> None:
        """Say why a command failed, in one line and a hint."""
        self._say(f"normcli: error: {message}", "bold red")
        if hint:
            self._say(f"Hint: {hint}")

    def planned(self, plan: Plan) -> None:
        """Tell the plan, where more is wanted."""
        if self.verbose and not self.quiet:
            self.table("plan", plan_rows(plan))

    def started(self, work: Pass, position: int, total: int) -> None:
        """Begin a bar, or a line in a log."""
        self._pass, self._read = work, 0
        self._begin = self._spoken = time.monotonic()
        self._title = _VERBS[work.kind] + (f" (pass {position} of {total})" if total > 1 else "")
        if self.live:
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                TaskProgressColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=work.bytes_read)

    def advanced(self, progress: Progress) -> None:
        """Move the bar, or speak now and then."""
        self._read += progress.bytes_read
        if self._bar is not None:
            self._bar.update(self._task, completed=self._read)
        elif not self.quiet and time.monotonic() - self._spoken >= LOG_SECONDS:
            self._spoken = time.monotonic()
            self._say(f"normcli: {self._title}: {self._state()}")

    def finished(self, seconds: float) -> None:
        """End the bar; leave one line."""
        self._stop()
        if not self.quiet and (self.verbose or not self.console.is_terminal):
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
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(f"  {name}", Text(printable(value)))
        self._say(f"normcli: {title}", "bold")
        _print(self.console, grid)

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(printable(text), style=style, soft_wrap=True)

    def _state(self) -> str:
        assert self._pass is not None
        seconds = max(time.monotonic() - self._begin, 1e-9)
        total = max(self._pass.bytes_read, 1)
        speed = self._read / seconds
        text = f"{100 * self._read // total} %, {size(self._read)} at {size(speed)}/s"
        if self._read < total and speed:
            return f"{text}, {duration((total - self._read) / speed)} left"
        return f"{text}, {duration(seconds)}"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def grid_on_stdout(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output, for commands whose result is a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _print(console, table)


def _print(console: Any, table: Any) -> None:
    if console.is_terminal:
        console.print(table)
        return
    # In a file or a pipe, cells are not padded to the end of the line.
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), soft_wrap=True)


def plan_rows(plan: Plan) -> Iterable[tuple[str, str]]:
    """Yield a plan as names and values."""
    yield "passes", f"{len(plan.passes)} ({plan.reason})"
    for number, work in enumerate(plan.passes, start=1):
        shape = "x".join(map(str, work.grid.block_shape)) or "1"
        yield (
            f"pass {number}",
            f"{_VERBS[work.kind]}: {len(work.grid)} blocks of {shape} ({work.reason}), "
            f"{size(work.bytes_read)} read, {size(work.bytes_written)} written",
        )
    yield (
        "memory",
        f"peak {size(plan.peak_memory)} of {size(plan.memory_budget)} "
        f"({plan.workers} workers, statistics {size(plan.statistics_memory)})",
    )
    yield "kernels", plan.kernel


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as values that JSON can hold."""
    return {
        "reason": plan.reason,
        "passes": [
            {
                "kind": work.kind,
                "blocks": len(work.grid),
                "block_shape": list(work.grid.block_shape),
                "block_memory": work.block_memory,
                "bytes_read": work.bytes_read,
                "bytes_written": work.bytes_written,
                "reason": work.reason,
            }
            for work in plan.passes
        ],
        "workers": plan.workers,
        "memory_budget": plan.memory_budget,
        "statistics_memory": plan.statistics_memory,
        "peak_memory": plan.peak_memory,
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "kernel": plan.kernel,
    }


def report_rows(report: Report) -> Iterable[tuple[str, str]]:
    """Yield a report as names and values."""
    counts = report.tally
    yield "input", f"{', '.join(report.inputs)} {shape_text(report.shape)} {report.dtype}"
    if report.output is not None:
        yield "output", f"{report.output} {report.output_dtype}"
    if report.stats is not None:
        yield "statistics", report.stats
    named = f" ({'; '.join(counts.constant_names)})" if counts.constant else ""
    yield "groups", f"{counts.groups}, constant {counts.constant}{named}"
    if counts.empty:
        yield "without values", f"{counts.empty} groups ({'; '.join(counts.empty_names)})"
    if counts.damped:
        yield "flattened", f"{counts.damped} groups have an epsilon above 1 % of their variance"
    if counts.count or counts.nonfinite:
        yield "non-finite", f"{counts.nonfinite} of {counts.count + counts.nonfinite} values"
    if report.written_mean is not None:
        yield (
            "written",
            f"mean {report.written_mean:.6g}, standard deviation {report.written_std:.6g}, "
            f"non-finite {report.written_nonfinite}",
        )
    moved = report.bytes_read + report.bytes_written
    yield (
        "time",
        f"{duration(report.seconds)}, {size(moved)} at {size(report.bytes_per_second)}/s "
        f"({report.passes} {'pass' if report.passes == 1 else 'passes'}, "
        f"{report.workers} {'worker' if report.workers == 1 else 'workers'})",
    )


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people: ``(64, 3, 32, 32)``."""
    return f"({', '.join(map(str, shape))})"


def size(nbytes: float) -> str:
    """Return bytes for people, in powers of 1024."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def printable(text: str) -> str:
    """Return text with control characters escaped, so that names cannot drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_error(message: str, hint: str | None = None) -> None:
    """Write an error without rich, for when standard error itself is in doubt."""
    sys.stderr.write(f"normcli: error: {printable(message)}\n")
    if hint:
        sys.stderr.write(f"Hint: {printable(hint)}\n")
