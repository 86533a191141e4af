"""normcli extract."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import screen_options
from normcli.cli.sections import command, output_option


@command("extract", short_help="One value out of a sidecar or a parameter file.")
@click.argument("stats", metavar="STATS")
@click.argument("name", metavar="NAME")
@output_option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write .npy, .json, .txt or another format by suffix; - is NPY on standard output.  "
    "[default: text on standard output]",
)
@output_option("--overwrite", is_flag=True, help="Replace an existing output.")
@screen_options
def extract_command(stats: str, name: str, output: str | None, **options: Any) -> None:
    """Print or write the value NAME of STATS.

    Arrays: count, mean, variance, std, m2, minimum, maximum, nonfinite, moving-mean,
    moving-variance, scale, bias; of the method robust lower, center, upper, spread, rank-error;
    of lp norm. Settings: epsilon, epsilon-placement, ddof, momentum, batches, batch-size,
    moving-variance-divisor, mode, method, range, quantiles, p, convention, layout, dimensions,
    aggregate, kept, scale-axes, groups, shape, dtype, version, created, command. A mean that an
    apply does not have is nan: of groups without finite values, and under --nonfinite propagate
    of those with NaN.

    \b
      normcli extract stats.json mean
      normcli extract stats.json moving-variance -o variance.npy
      normcli extract stats.json epsilon --json
      normcli extract model.safetensors#layers.3.norm weight -o - | next-tool
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import require_output_pipe

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.extracted_values import value_array, write_value
        from normcli.api.extracting import extract_value
        from normcli.errors import UsageError

        if output is not None and options["json"]:
            raise UsageError(
                "--json prints on standard output, -o writes a file.", "Write -o FILE.json."
            )
        require_output_pipe(output)
        value = extract_value(stats, name)
        if output is None:
            print_value(value, options["json"])
        elif output == "-":
            from normcli.cli.streams import emit_array

            emit_array(value_array(name, value))
        else:
            write_value(output, name, value, options["overwrite"])
            screen.note(f"{name} of {stats} is in {output}")
        return 0

    run_command(screen, options["debug"], body)


def print_value(value: Any, as_json: bool) -> None:
    """Print a value on standard output, as text or as JSON."""
    from normcli.api.extracted_values import value_json, value_text
    from normcli.cli.streams import emit, emit_json

    if as_json:
        emit_json(value_json(value))
    else:
        emit(value_text(value))
