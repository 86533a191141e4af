"""normcli apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from normcli.cli.options import apply_options, norm_options, pick, run_options, screen_options
from normcli.cli.sections import command, output_option

if TYPE_CHECKING:
    from normcli.api.options import ApplyOptions, RunOptions
    from normcli.cli.screen import Screen


@command("apply", short_help="Normalize arrays, by given or their own statistics.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@output_option(
    "-o", "--output", required=True, metavar="OUTPUT", help="An array, or a folder for several."
)
@norm_options
@apply_options
@run_options
@screen_options
def apply_command(inputs: tuple[str, ...], output: str, **options: Any) -> None:
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
    from normcli.cli.streams import require_input_pipe, require_output_pipe

    screen = Screen(options["quiet"], options["verbose"], options["progress"])
    as_json = options["json"]

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
        require_input_pipe(inputs)
        if len(inputs) == 1 and not _is_folder(output):
            if not run.dry_run:
                require_output_pipe(output)
            return _apply_one(inputs[0], output, apply, run, screen, as_json)
        return _apply_several(list(inputs), output, apply, run, screen, as_json)

    run_command(screen, options["debug"], body)


def _apply_one(
    name: str, output: str, apply: ApplyOptions, run: RunOptions, screen: Screen, as_json: bool
) -> int:
    from normcli.api.applying import apply_array
    from normcli.cli.streams import emit_json
    from normcli.cli.summaries import outcome_json, plan_rows

    outcome = apply_array(name, output, apply, run, screen)
    if as_json:
        emit_json(outcome_json(outcome))
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
    from contextlib import ExitStack
    from dataclasses import replace
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from normcli.api.applying import apply_array
    from normcli.api.several import output_names
    from normcli.cli.faults import fault_of
    from normcli.cli.streams import emit_json
    from normcli.cli.summaries import outcome_json, plan_rows
    from normcli.errors import NormcliError, PartialFailureError, UsageError

    if isinstance(apply.stats_out, str):
        raise UsageError(
            "--stats-out names one sidecar, but several inputs have one each.", "Leave it out."
        )
    outputs = output_names(names, folder)
    _make_folder(folder, run.dry_run)
    stack = ExitStack()
    planned = outputs
    if not Path(folder).exists():
        # A dry run makes no folder, so it plans for one that goes away again.
        planned = output_names(names, stack.enter_context(TemporaryDirectory()))
    documents: list[dict[str, Any]] = []
    rows: list[tuple[str, str]] = []
    codes: list[int] = []
    for name, output, place in zip(names, outputs, planned, strict=True):
        try:
            outcome = apply_array(name, place, apply, run, screen)
        except BrokenPipeError:
            raise
        except (NormcliError, OSError) as caught:
            fault = fault_of(caught)
            codes.append(fault.code)
            named = fault.message.startswith(f"{name} ")
            told = fault.message if named else f"{name}: {fault.message}"
            screen.error(replace(fault, message=told, file=name))
            rows.append((name, f"failed (exit code {fault.code})"))
            documents.append({"input": name, "error": fault.message, "code": fault.code})
            continue
        documents.append({"input": name, "output": output, **outcome_json(outcome)})
        if outcome.report is None:
            rows.append((name, f"planned: {output}"))
            if not as_json:
                screen.table(f"plan (dry run) for {name}", plan_rows(outcome.plan))
        else:
            rows.append((name, f"done: {output}"))
            if screen.verbose:
                screen.report(outcome.report)
    stack.close()
    if as_json:
        emit_json(documents)
    if not screen.quiet:
        verb = "planned" if run.dry_run else "done"
        screen.table(f"{len(names) - len(codes)} of {len(names)} inputs {verb}", rows)
    if not codes:
        return 0
    all_alike = len(codes) == len(names) and len(set(codes)) == 1
    return codes[0] if all_alike else PartialFailureError.exit_code


def _make_folder(folder: str, dry_run: bool) -> None:
    """Make the folder for several outputs.

    Raises
    ------
    UsageError
        When the name is that of a file, an array or a pipe.
    OutputError
        When it cannot be made.
    """
    from pathlib import Path

    from normcli.cli.faults import os_error_text
    from normcli.errors import OutputError, UsageError

    path = Path(folder)
    if folder == "-" or (path.exists() and not path.is_dir()):
        what = "standard output" if folder == "-" else "a file"
        raise UsageError(
            f"{folder} is {what}, but several inputs are written into a folder.", "Give a folder."
        )
    if not folder.endswith("/") and not _is_folder(folder) and _is_array_name(folder):
        raise UsageError(
            f"{folder} names an array, but several inputs are written into a folder.",
            f"Give a folder; {folder}/ takes that name for one.",
        )
    if dry_run:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder could not be made: {os_error_text(error)}", "Choose another -o."
        ) from error


def _is_folder(output: str) -> bool:
    """Whether an output names a folder for outputs, not an array."""
    from pathlib import Path

    from normcli.arrays.paths import is_zarr_folder

    if output == "-":
        return False
    path = Path(output)
    if not path.is_dir() or is_zarr_folder(path):
        return output.endswith("/") and not path.exists() and not _is_array_name(output)
    return output.endswith("/") or not _is_array_name(output)


def _is_array_name(output: str) -> bool:
    from pathlib import Path

    from normcli.arrays.paths import SUFFIXES

    return Path(output).suffix.lower() in SUFFIXES
