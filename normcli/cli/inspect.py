"""normcli inspect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from normcli.cli.options import screen_options
from normcli.cli.sections import command, option

if TYPE_CHECKING:
    from normcli.api.inspecting import Inspection
    from normcli.cli.screen import Screen


@command("inspect", short_help="What is in a container, a sidecar or a parameter file.")
@click.argument("path")
@option("--property", "name", metavar="NAME", help="Print one value only, as normcli extract does.")
@screen_options
def inspect_command(path: str, name: str | None, **options: Any) -> None:
    """Show what PATH holds: arrays with shape, type, chunks and codecs, or fitted statistics.

    \b
      normcli inspect data.h5
      normcli inspect data.h5/group/x --json
      normcli inspect stats.json
      normcli inspect stats.json --property epsilon
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen, table_text
    from normcli.cli.streams import emit, emit_json

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.inspecting import inspect_path

        if name is not None:
            from normcli.api.extracting import extract_value
            from normcli.cli.extract import print_value

            print_value(extract_value(path, name), options["json"])
            return 0
        found = inspect_path(path)
        if options["json"]:
            emit_json(found.as_dict())
            return _told(found, screen)
        parts = []
        facts = _facts(found)
        if facts:
            parts.append(table_text(("", ""), facts))
        parts.append(table_text(found.headers, _rows(found)))
        emit("\n\n".join(parts))
        return _told(found, screen)

    run_command(screen, options["debug"], body)


def _told(found: Inspection, screen: Screen) -> int:
    """Tell of arrays that could not be listed, and return the exit code."""
    from dataclasses import replace

    from normcli.cli.faults import fault_of

    if not found.damage:
        return 0
    fault = fault_of(found.damage[0])
    others = len(found.damage) - 1
    if others:
        fault = replace(fault, message=f"{fault.message.rstrip('.')}; {others} more.")
    screen.error(fault)
    return fault.code


def _facts(found: Inspection) -> list[tuple[str, str]]:
    """Return what is true of the whole: of a single array, its attributes."""
    attributes = found.details.get("attributes") or {}
    return [*found.facts.items(), *((str(key), str(value)) for key, value in attributes.items())]


def _rows(found: Inspection) -> list[tuple[str, ...]]:
    """Return the cells of the table, with sizes and shards for people."""
    from normcli.cli.texts import size

    def cell(header: str, text: str, array: Mapping[str, Any]) -> str:
        if header in ("size", "stored") and isinstance(array.get(header), int):
            return size(array[header])
        if header == "chunks" and array.get("shards"):
            return f"{text} (shards {', '.join(map(str, array['shards']))})"
        return text

    return [
        tuple(cell(header, text, array) for header, text in zip(found.headers, row, strict=True))
        for row, array in zip(found.rows(), found.arrays, strict=True)
    ]
