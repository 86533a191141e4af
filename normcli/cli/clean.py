"""normcli clean."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import screen_options
from normcli.cli.sections import command, option


@command("clean", short_help="Remove what interrupted runs left.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@option("--dry-run", is_flag=True, help="Only list it.")
@screen_options
def clean_command(paths: tuple[str, ...], dry_run: bool, **options: Any) -> None:
    """Remove what interrupted runs left for PATHs: outputs, or folders of outputs.

    Runs that are alive are left alone. A run that was killed between its last byte and its name is
    complete: its output gets the name.

    \b
      normcli clean out.zarr
      normcli clean --dry-run results/
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen, table_text
    from normcli.cli.streams import emit, emit_json
    from normcli.cli.texts import size

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.cleaning import clean

        found = [leftover for path in paths for leftover in clean(path, dry_run)]
        done = {"interrupted": "removed", "complete": "given its name", "running": "left alone"}
        would = {"interrupted": "would be removed", "complete": "would be given its name"}
        rows = []
        for left in found:
            outcome = {**done, **would}[left.state] if dry_run else done[left.state]
            rows.append((str(left.path), size(left.nbytes), str(left.blocks), left.owner, outcome))
        if options["json"]:
            names = ("path", "bytes", "blocks", "owner", "outcome")
            emit_json(
                [
                    dict(zip(names, (r[0], left.nbytes, left.blocks, *r[3:]), strict=True))
                    for r, left in zip(rows, found, strict=True)
                ]
            )
        elif rows:
            emit(table_text(("leftover", "size", "blocks", "made by", "outcome"), rows))
        else:
            screen.note("nothing was left by interrupted runs")
        return 0

    run_command(screen, options["debug"], body)
