"""The headline figures of reliability, gathered from the tests and printed as one table.

A test takes the fixture `figures` and adds what it saw::

    def test_kills(figures):
        figures.count("R1", runs=40, identical=40, wrong=0, unusable=0)  # summed over tests
        figures.most("R8", over_budget_mib=12.5)                         # the largest of all
        figures.least("R10", ratio=0.97)                                 # the smallest of all

The names of the values are free; the table prints them in the order in which they came. Values
travel as properties of test reports, so they arrive from the workers of pytest-xdist, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

# What each figure is, and its goal.
TITLES = {
    "R1": ("killed at any moment, then continued", "500 runs: all identical"),
    "R2": ("an operation fails: clean end, continued or begun again", "no bad state"),
    "R3": ("one bit of an output flipped: found by verify", "500 a format: all found and named"),
    "R4": ("hostile and odd files", "none opened outside, executed, crashed or hung"),
    "R5": ("mutated inputs", "2000 a format: no crash, hang or silent error"),
    "R6": ("one result: chunkings, threads, processes, resume points", "50 of one digest"),
    "R7": ("accuracy of mean and variance (ulp)", "<= 1, float64 <= 4"),
    "R8": ("memory over the budget; from a signal to the end", "<= 150 MiB; <= 5 s"),
    "R9": ("workers killed every 2 s", "20 of 20 identical"),
    "R10": ("speed with checksums, syncs and journal to without", ">= 0.95"),
}
_NAME = "reliability figure"

Value = int | float


@dataclass(frozen=True)
class Figures:
    """Takes the values of one test.

    Parameters
    ----------
    properties : list
        ``request.node.user_properties``.
    """

    properties: list[tuple[str, Any]]

    def count(self, key: str, **values: Value) -> None:
        """Add values that are summed over all tests."""
        self._add(key, "sum", values)

    def most(self, key: str, **values: Value) -> None:
        """Add values whose largest counts."""
        self._add(key, "max", values)

    def least(self, key: str, **values: Value) -> None:
        """Add values whose smallest counts."""
        self._add(key, "min", values)

    def _add(self, key: str, how: str, values: dict[str, Value]) -> None:
        assert key in TITLES, key
        self.properties.extend((_NAME, [key, how, n, value]) for n, value in values.items())


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Return what takes the headline figures of this test."""
    return Figures(request.node.user_properties)


_FOLDS: dict[str, Callable[[Value, Value], Value]] = {
    "sum": lambda a, b: a + b,
    "max": max,
    "min": min,
}


def folded(entries: Iterable[tuple[str, str, str, Value]]) -> dict[str, dict[str, Value]]:
    """Return the values of each figure.

    >>> folded([("R1", "sum", "runs", 3), ("R1", "sum", "runs", 4), ("R8", "max", "s", 0.5)])
    {'R1': {'runs': 7}, 'R8': {'s': 0.5}}
    """
    found: dict[str, dict[str, Value]] = {}
    for key, how, name, value in entries:
        values = found.setdefault(key, {})
        values[name] = _FOLDS[how](values[name], value) if name in values else value
    return found


def table(found: dict[str, dict[str, Value]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| # | figure | goal | measured |", "|---|---|---|---|"]
    for key, (title, goal) in TITLES.items():
        values = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}"
            if isinstance(value, float)
            else f"{name.replace('_', ' ')} {value}"
            for name, value in found.get(key, {}).items()
        )
        lines.append(f"| {key} | {title} | {goal} | {values or 'not measured in this run'} |")
    return "\n".join(lines)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table after a run that measured any of the figures."""
    entries = [
        tuple(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == _NAME
    ]
    if entries:
        terminalreporter.section("headline figures of reliability")
        terminalreporter.write_line(table(folded(entries)))
