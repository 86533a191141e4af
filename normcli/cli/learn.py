"""normcli learn."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.learn_options import learn_options
from normcli.cli.options import norm_options, pick, run_options, screen_options
from normcli.cli.sections import command, output_option


@command("learn", short_help="Learn scale and bias against a target array.")
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="TARGET")
@output_option(
    "-o",
    "--output",
    metavar="AFFINE",
    help=".json, .npz, .h5, .zarr, .safetensors; .npy holds one term.",
)
@norm_options
@learn_options
@run_options
@screen_options
def learn_command(source: str, target: str, output: str | None, **options: Any) -> None:
    """Learn the scale and bias that carry the normalized INPUT to TARGET.

    The exact solver finds the least squares, with L2 penalties and bounds; --solver sgd takes
    the gradient steps of training frameworks. Either way one pass over both arrays is enough,
    after that of the statistics where they are not given.

    \b
      normcli learn x.zarr target.zarr -o affine.json
      normcli learn x.zarr target.zarr -o affine.npz --stats stats.json --scale-bounds 0,
      normcli learn x.npy t.npy -o affine.json --solver sgd --batch-size 32 --epochs 20
      normcli apply x.zarr -o y.zarr --affine affine.json
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json
    from normcli.cli.summaries import outcome_json, plan_rows

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.learning import learn_arrays
        from normcli.api.learning_options import LearnOptions
        from normcli.api.options import RunOptions
        from normcli.errors import UsageError

        run = pick(RunOptions, options)
        if output is None and not run.dry_run and not options["json"]:
            raise UsageError("learn needs an output.", "Give -o AFFINE.json, or --json.")
        if output == "-":
            raise UsageError(
                "Scale and bias do not go to standard output by -o.", "Give --json without -o."
            )
        outcome = learn_arrays(source, target, output, pick(LearnOptions, options), run, screen)
        if options["json"]:
            document = outcome_json(outcome)
            if outcome.affine is not None and output is None:
                document["affine"] = {
                    name: values.tolist()
                    for name in ("scale", "bias")
                    if (values := getattr(outcome.affine, name)) is not None
                }
            emit_json(document)
        elif outcome.report is None:
            screen.table("plan (dry run)", plan_rows(outcome.plan))
        if outcome.report is not None:
            screen.report(outcome.report)
        return 0

    run_command(screen, options["debug"], body)
