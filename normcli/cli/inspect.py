"""normcli inspect."""

from __future__ import annotations

import json

import click

from normcli.cli.options import screen_options


@click.command("inspect", short_help="What is in a container, a sidecar or a parameter file.")
@click.argument("path")
@screen_options
def inspect_command(
    path: str, as_json: bool, quiet: bool, verbose: bool, progress: bool | None, debug: bool
) -> None:
    """Show what PATH holds: arrays with shape, type, chunks and codecs, or fitted statistics.

    \b
      normcli inspect data.h5
      normcli inspect data.h5/group/x --json
      normcli inspect stats.json
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen

    screen = Screen(quiet, verbose, progress)

    def body() -> int:
        from normcli.api.inspecting import inspect_path
        from normcli.cli.screen import grid_on_stdout

        found = inspect_path(path)
        if as_json:
            click.echo(json.dumps(found.as_dict()))
            return 0
        if found.facts:
            grid_on_stdout(("", ""), list(found.facts.items()))
            click.echo()
        grid_on_stdout(found.headers, found.rows())
        return 0

    run_command(screen, debug, body)
