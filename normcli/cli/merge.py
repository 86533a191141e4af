"""normcli merge."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import merge_options, screen_options
from normcli.cli.sections import command, output_option


@command("merge", short_help="Join parts, or separate statistics, into one.")
@click.argument("stats", nargs=-1, required=True, metavar="STATS...")
@output_option("-o", "--output", metavar="STATS", help=".json, .npz, .h5, .zarr or .safetensors.")
@merge_options
@screen_options
def merge_command(stats: tuple[str, ...], output: str | None, **options: Any) -> None:
    """Write the union of STATS: what one fit of all their inputs would have written.

    Parts of an input (fit --part) must be complete; separate fits follow each other along the
    batch axis in the order given. Nothing is counted twice.

    \b
      normcli merge parts/stats-*.json -o stats.json
      normcli merge monday.json tuesday.json -o week.npz
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json
    from normcli.cli.summaries import report_rows

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.merging import merge_statistics
        from normcli.errors import UsageError

        dry_run = options["dry_run"]
        if output is None and not dry_run and not options["json"]:
            raise UsageError("merge needs an output.", "Give -o STATS.json, or --json.")
        if output == "-":
            raise UsageError(
                "Statistics do not go to standard output by -o.", "Give --json without -o."
            )
        outcome = merge_statistics(stats, output, options["overwrite"], dry_run, screen)
        if options["json"]:
            document = {"report": dict(outcome.report.as_dict())}
            if output is None and not dry_run:
                from normcli.bundles.statistics_bundle import statistics_document

                document["statistics"] = statistics_document(outcome.statistics)
            emit_json(document)
        if not dry_run:
            screen.report(outcome.report)
        elif not screen.quiet:
            screen.table("merge (dry run): nothing was written", report_rows(outcome.report))
        return 0

    run_command(screen, options["debug"], body)
