"""normcli convert."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import pick, screen_options
from normcli.cli.sections import command, option, output_option

_FORMATS = ["normcli", "torch", "keras", "onnx", "sklearn", "torchvision", "kaldi"]


@command("convert", short_help="Statistics to and from what other frameworks read.")
@click.argument("stats", metavar="STATS")
@output_option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@option(
    "--from",
    "source",
    type=click.Choice([*_FORMATS, "matlab"]),
    help="What STATS is.  [default: by suffix and names]",
)
@option(
    "--to",
    "target",
    type=click.Choice(_FORMATS),
    help="What FILE shall be.  [default: by suffix; a sidecar for .json .npz .h5 .zarr]",
)
@option(
    "--estimate",
    type=click.Choice(["pooled", "moving"]),
    help="Which statistics.  [default: moving where the fit kept them]",
)
@option(
    "--moving-variance",
    type=click.Choice(["biased", "unbiased"]),
    help="Divisor n or n-1 of the variance that is written.  [default: as apply uses it]",
)
@option(
    "--epsilon",
    type=float,
    metavar="E",
    help="Epsilon of a layer whose file states none.  [default: its framework's]",
)
@option(
    "--layout",
    metavar="NCHW",
    help="Layout of the arrays that statistics of another program are for.  [default: NC]",
)
@option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Of tensors that are written.  [default: that of the data]",
)
@option(
    "--opset",
    type=click.IntRange(18, 23),
    metavar="V",
    help="Operators of an ONNX model, 18 to 23.  [default: 21, or 23 for RMS normalization]",
)
@output_option("--overwrite", is_flag=True, help="Replace an existing output.")
@screen_options
def convert_command(stats: str, output: str, **options: Any) -> None:
    """Write the statistics, scale and bias of STATS as another program reads them, or read its.

    What is written gives the numbers that normcli apply --stats gives. What the format cannot hold
    is said, and refused with exit code 7 where the numbers would differ.

    \b
      torch        weight, bias, running_mean, running_var, num_batches_tracked
      keras        gamma, beta, moving_mean, moving_variance; .keras: a model with the layer
      onnx         a model with the node: batch, instance, layer, group or RMS normalization
      sklearn      attributes of StandardScaler, as JSON
      torchvision  mean and std of Normalize, as JSON
      kaldi        CMVN statistics, as text

    \b
      normcli convert stats.json -o bn.safetensors --to torch
      normcli convert stats.json -o norm.onnx
      normcli convert model.pt#layers.3.norm -o stats.json --layout NCHW
    """
    from normcli.cli.running import run_command
    from normcli.cli.screen import Screen
    from normcli.cli.streams import emit_json

    screen = Screen(options["quiet"], options["verbose"], options["progress"])

    def body() -> int:
        from normcli.api.convert_options import ConvertOptions
        from normcli.api.converting import convert_file

        written = convert_file(stats, output, pick(ConvertOptions, options), screen)
        if options["json"]:
            emit_json({"input": stats, "output": output, "written": written})
        else:
            screen.note(f"{output} holds {written}")
        return 0

    run_command(screen, options["debug"], body)
