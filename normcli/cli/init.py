"""normcli init."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import axes_options, pick, screen_options
from normcli.cli.sections import command, option, output_option


@command("init", short_help="Make scale and bias to begin with.")
@click.argument("like", required=False, metavar="[ARRAY|STATS]")
@output_option("-o", "--output", required=True, metavar="AFFINE", help="The file to write.")
@option(
    "--scale",
    default="ones",
    show_default=True,
    metavar="INIT|FILE|none",
    help="ones, zeros, narrow-normal, a file of numbers, or none for no scale.",
)
@option(
    "--bias",
    default="zeros",
    show_default=True,
    metavar="INIT|FILE|none",
    help="zeros, ones, narrow-normal, a file of numbers, or none for no bias.",
)
@option("--seed", type=click.IntRange(0), metavar="N", help="Of narrow-normal; recorded.")
@option(
    "--shape", metavar="SHAPE", help="Extents of the scale axes, such as 64 or 20,30; none: scalar."
)
@axes_options
@output_option("--overwrite", is_flag=True, help="Replace an existing output.")
@screen_options
def init_command(like: str | None, output: str, **options: Any) -> None:
    """Write a scale and a bias that fit an array, statistics, or --shape.

    narrow-normal draws from the normal distribution of mean 0 and standard deviation 0.01. A term
    that is none is absent, which is not the same as ones or zeros: it is not written, not learned,
    and not applied.

    \b
      normcli init train.zarr -o affine.npz
      normcli init stats.json -o affine.json --scale narrow-normal --seed 1
      normcli init --shape 64 -o affine.safetensors --bias none
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.initializing import InitOptions, initial_affine, write_initial

        chosen = pick(InitOptions, options)
        affine, made = initial_affine(like, chosen, screen)
        write_initial(output, affine, made, options["overwrite"])
        if options["json"]:
            emit_json({"output": output, **made})
        else:
            shape = ", ".join(map(str, made["shape"]))
            screen.note(f"{output}: scale {chosen.scale}, bias {chosen.bias}, shape ({shape})")
        return 0

    run_command(screen, options["debug"], body)
