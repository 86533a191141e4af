"""normcli apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from normcli.cli.options import apply_options, norm_options, pick, run_options, screen_options

if TYPE_CHECKING:
    from normcli.api.applying import ApplyOutcome
    from normcli.api.options import ApplyOptions, RunOptions
    from normcli.cli.screen import Screen


@click.command("apply", short_help="Normalize arrays, by given or their own statistics.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o", "--output", required=True, metavar="OUTPUT", help="An array, or a folder for several."
)
@norm_options
@apply_options
@run_options
@screen_options
def apply_command(
    inputs: tuple[str, ...],
    output: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    progress: bool | None,
    debug: bool,
    **options: Any,
) -> None:
    """Write the normalized INPUT: (x - mean) / sqrt(var + eps) * scale + bias.

    With --stats by the statistics of a fit, else by the input's own. Several inputs are written
    into the folder OUTPUT, each under its own name.

    \b
      normcli apply test.zarr -o test-normalized.zarr --stats stats.json
      normcli apply images.h5/x -o out.zarr --mode instance --layout NCHW
      normcli apply normalized.zarr -o back.zarr --inverse --stats normalized.zarr.stats.json
      cat x.npy | normcli apply - -o - --mode layer | ...
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen

    screen = Screen(quiet, verbose, progress)

    def body() -> int:
        from normcli.api.options import ApplyOptions, RunOptions
        from normcli.errors import UsageError

        if options.pop("no_stats_out"):
            if options["stats_out"] is not None:
                raise UsageError("--stats-out and --no-stats-out exclude each other.")
            options["stats_out"] = False
        elif options["stats_out"] is None:
            options["stats_out"] = True
        apply: ApplyOptions = pick(ApplyOptions, options)
        run: RunOptions = pick(RunOptions, options)
        if as_json and output == "-" and not run.dry_run:
            raise UsageError("--json and -o - both want standard output.", "Leave one out.")
        if len(inputs) == 1 and not _is_folder(output):
            return _apply_one(inputs[0], output, apply, run, screen, as_json)
        return _apply_several(list(inputs), output, apply, run, screen, as_json)

    run_command(screen, debug, body)


def _apply_one(
    name: str, output: str, apply: ApplyOptions, run: RunOptions, screen: Screen, as_json: bool
) -> int:
    from normcli.api.applying import apply_array
    from normcli.cli.screen import plan_rows

    outcome = apply_array(name, output, apply, run, screen)
    if as_json:
        click.echo(json.dumps(_document(outcome)))
    elif outcome.report is None:
        screen.table("plan (dry run)", plan_rows(outcome.plan))
    if outcome.report is not None:
        screen.report(outcome.report)
    return 0


def _apply_several(
    names: list[str],
    folder: str,
    apply: ApplyOptions,
    run: RunOptions,
    screen: Screen,
    as_json: bool,
) -> int:
    """Normalize each input into a folder; one that fails leaves the others."""
    from pathlib import Path

    from normcli.api.applying import apply_array, output_names
    from normcli.errors import NormcliError, PartialFailureError, UsageError

    if isinstance(apply.stats_out, str):
        raise UsageError(
            "--stats-out names one sidecar, but several inputs have one each.", "Leave it out."
        )
    outputs = output_names(names, folder)
    if not run.dry_run:
        Path(folder).mkdir(parents=True, exist_ok=True)
    documents: list[dict[str, Any]] = []
    rows: list[tuple[str, str]] = []
    failures: list[NormcliError] = []
    for name, output in zip(names, outputs, strict=True):
        try:
            outcome = apply_array(name, output, apply, run, screen)
        except NormcliError as error:
            failures.append(error)
            screen.error(f"{name}: {error.message}", error.hint)
            rows.append((name, f"failed ({error.exit_code}): {error.message}"))
            documents.append({"input": name, "error": error.message, "code": error.exit_code})
        else:
            rows.append((name, f"done: {output}" if outcome.report else "planned"))
            documents.append({"input": name, **_document(outcome)})
            if outcome.report is not None and screen.verbose:
                screen.report(outcome.report)
    if as_json:
        click.echo(json.dumps(documents))
    if not screen.quiet:
        screen.table(f"{len(names) - len(failures)} of {len(names)} inputs done", rows)
    if not failures:
        return 0
    same = {error.exit_code for error in failures}
    all_failed = len(failures) == len(names) and len(same) == 1
    return failures[0].exit_code if all_failed else PartialFailureError.exit_code


def _is_folder(output: str) -> bool:
    """Whether an output names a folder for outputs, not an array."""
    from pathlib import Path

    if output == "-":
        return False
    path = Path(output)
    return output.endswith("/") or (path.is_dir() and path.suffix == "")


def _document(outcome: ApplyOutcome) -> dict[str, Any]:
    from normcli.cli.screen import plan_json

    document: dict[str, Any] = {"plan": plan_json(outcome.plan)}
    if outcome.report is not None:
        document["report"] = dict(outcome.report.as_dict())
    return document
