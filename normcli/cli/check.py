"""normcli check."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import screen_options
from normcli.cli.sections import command, option


@command("check", short_help="Would these statistics fit this array?")
@click.argument("stats", metavar="STATS")
@click.argument("source", metavar="INPUT")
@option(
    "--layout",
    metavar="NCHW",
    help="Layout of INPUT; that of the fit without N is one observation.",
)
@option(
    "--estimate",
    type=click.Choice(["pooled", "moving"]),
    help="Which statistics.  [default: moving where the fit kept them]",
)
@option(
    "--allow-external-refs",
    is_flag=True,
    help="Follow HDF5 links, virtual datasets and raw storage into other files.",
)
@option(
    "--allow-symlinks",
    is_flag=True,
    help="Follow symbolic links that lead out of a Zarr store.",
)
@screen_options
def check_command(
    stats: str,
    source: str,
    layout: str | None,
    estimate: str | None,
    allow_external_refs: bool,
    allow_symlinks: bool,
    **options: Any,
) -> None:
    """Compare STATS with INPUT before an apply: axes, channels, type, units, range, epsilon.

    Nothing is written. The range is that of a sample: at most 16 blocks of about 1 MiB, the same
    every time. Exit code 0 where the statistics fit, also with notes, and 7 where they do not.

    \b
      normcli check stats.json other.zarr
      normcli check stats.json other.zarr --json
      normcli check stats.json one.npy --layout CHW
    """
    from normcli.cli.faults import fault_of
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.checking import check_statistics
        from normcli.arrays.rules import InputRules
        from normcli.errors import DataPolicyError

        rules = InputRules(allow_external_refs, allow_symlinks)
        found = check_statistics(stats, source, layout=layout, estimate=estimate, rules=rules)
        if options["json"]:
            emit_json(found.as_dict())
        if not screen.quiet:
            whose = " (what they were fitted on)" if found.same_data else ""
            verdict = "fits" if found.fits else "does not fit"
            screen.table(
                f"{found.stats} {verdict} {found.input}{whose}",
                [
                    (f.about, f.text if f.verdict == "fits" else f"{f.verdict}: {f.text}")
                    for f in found.findings
                ],
            )
        if found.fits:
            return 0
        first, *others = found.misfits
        more = f"; {len(others)} more" if others else ""
        error = DataPolicyError(
            f"{found.stats} does not fit {found.input}: {first.about}: {first.text}{more}.",
            "Fit on an array of the same kind, or name the array that the statistics are for.",
        )
        screen.error(fault_of(error))
        return error.exit_code

    run_command(screen, options["debug"], body)
