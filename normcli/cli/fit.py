"""normcli fit."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import fit_options, norm_options, pick, run_options, screen_options
from normcli.cli.sections import command, output_option


@command("fit", short_help="Measure arrays: one pass, exact statistics.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@output_option("-o", "--output", metavar="STATS", help=".json, .npz, .h5, .zarr or .safetensors.")
@norm_options
@fit_options
@run_options
@screen_options
def fit_command(inputs: tuple[str, ...], output: str | None, **options: Any) -> None:
    """Measure INPUTs in one pass and write their statistics.

    Several inputs are one dataset, joined along the batch axis in the order given.

    \b
      normcli fit train.zarr -o stats.json
      normcli fit a.h5/x b.h5/x --layout NCHW -o stats.npz
      normcli fit train.npy --momentum 0.9 --batch-size 32 -o stats.json
      cat x.npy | normcli fit - -o stats.json
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json, require_input_pipe
    from normcli.cli.summaries import outcome_json, plan_rows

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.fitting import fit_arrays
        from normcli.api.options import FitOptions, RunOptions
        from normcli.errors import UsageError

        run = pick(RunOptions, options)
        if output is None and not run.dry_run and not options["json"]:
            raise UsageError("fit needs an output.", "Give -o STATS.json, or --json.")
        if output == "-":
            raise UsageError(
                "Statistics do not go to standard output by -o.", "Give --json without -o."
            )
        require_input_pipe(inputs)
        outcome = fit_arrays(inputs, output, pick(FitOptions, options), run, screen)
        if options["json"]:
            document = outcome_json(outcome)
            if outcome.statistics is not None and output is None:
                from normcli.bundles.statistics_bundle import statistics_document

                document["statistics"] = statistics_document(outcome.statistics)
            emit_json(document)
        elif outcome.report is None:
            screen.table("plan (dry run)", plan_rows(outcome.plan))
        if outcome.report is not None:
            screen.report(outcome.report)
        return 0

    run_command(screen, options["debug"], body)
