"""Help of a command with its options under headings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

# Headings in the order of help; a command shows those that it has options for.
HEADINGS = (
    "Options",
    "Output",
    "Axes",
    "Formula",
    "Statistics",
    "Batches and moving statistics",
    "Scale and bias",
    "Learning",
    "Input",
    "Run",
    "Screen",
)


class SectionedOption(click.Option):
    """An option that knows its heading."""

    def __init__(self, *args: Any, section: str = HEADINGS[0], **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists options under `HEADINGS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a list under each heading."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            # Arguments stand in the usage line.
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                # Only --help is made by click itself.
                rows[getattr(parameter, "section", HEADINGS[-1])].append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def option_of(section: str) -> Callable[..., Any]:
    """Return ``click.option`` for options under a heading."""
    return partial(click.option, cls=SectionedOption, section=section)


# What most commands begin with.
option = option_of(HEADINGS[0])
output_option = option_of("Output")
command = partial(click.command, cls=SectionedCommand)
