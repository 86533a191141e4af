"""Each option of the command line, once; commands pick from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from normcli.cli.faults import OPTION
from normcli.cli.sections import option_of, output_option

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Decorator = Callable[[F], F]


class BatchSizes(click.ParamType):
    """One batch size, or several separated by commas."""

    name = "B[,B...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the sizes as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no batch size; give 32, or 32,32,16.", param, ctx)


class Bounds(click.ParamType):
    """Two numbers separated by a comma."""

    name = "LO,HI"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return the bounds as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no range; give 0,1 or -1,1.", param, ctx)
        return low, high


def compose(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator for several options, shown in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_axes = option_of("Axes")
_formula = option_of("Formula")
_input = option_of("Input")
_statistics = option_of("Statistics")
_moving = option_of("Batches and moving statistics")
_affine = option_of("Scale and bias")
_run = option_of("Run")
_screen = option_of("Screen")

_AXES = (
    _axes(
        "--mode",
        type=click.Choice(["batch", "instance", "layer", "group", "custom"]),
        help="Which axes are aggregated.  [default: batch]",
    ),
    _axes(
        "--layout",
        metavar="NCHW",
        help="One letter an axis (N batch, C channel, S D H W L spatial, T time, U any), or "
        "dimension names separated by commas.",
    ),
    _axes(
        "--aggregate",
        metavar="EXPR",
        help="Axes to sum over: HW, S (all spatial ones), -1, 2:4, lat,lon, all, ~C.",
    ),
    _axes(
        "--scale-axes", metavar="EXPR", help="Axes of scale and bias, or complement, same, none."
    ),
    _axes(
        "--wolfram-levels",
        is_flag=True,
        help="Read both as levels of one example, from 1 (2;;All), without the batch axis.",
    ),
    _axes("--groups", type=int, metavar="G", help="Groups of channels (mode group)."),
    _axes("--group-axis", metavar="AXIS", help="The axis that groups divide.  [default: C]"),
)

_NORM = (
    *_AXES,
    _formula(
        "--method",
        type=click.Choice(["zscore", "rms", "center", "std", "minmax", "maxabs", "robust", "lp"]),
        help="(x-mean)/sqrt(var+eps); x/sqrt(mean(x^2)+eps); x-mean; x/sqrt(var+eps); "
        "(x-min)/(max-min); x/max(|x|); (x-median)/(q75-q25); x/max(norm,eps).  "
        "[default: zscore]",
    ),
    _formula(
        "--range",
        type=Bounds(),
        help="What minimum and maximum become (method minmax).  [default: 0,1]",
    ),
    _formula(
        "--quantiles",
        type=Bounds(),
        help="Percentages whose distance is divided by (method robust).  [default: 25,75]",
    ),
    _formula(
        "--p",
        type=float,
        metavar="P",
        help="Which norm, from 1 to inf (method lp).  [default: 2]",
    ),
    _formula(
        "--epsilon",
        type=float,
        metavar="E",
        help="Added to the variance; the least norm (method lp).  [default: 1e-5, and 0]",
    ),
    _formula(
        "--epsilon-placement",
        type=click.Choice(["inside", "outside", "floor"]),
        help="sqrt(var+E); sqrt(var)+E; max(sqrt(var),E).  [default: inside]",
    ),
    _formula(
        "--ddof", type=click.IntRange(0, 1), metavar="0|1", help="Divide by n - ddof.  [default: 0]"
    ),
    _formula(
        "--convention",
        type=click.Choice(["wolfram", "keras", "matlab", "torch", "onnx", "sklearn"]),
        help="Take that system's defaults, to reproduce its numbers.",
    ),
    _formula(
        "--nonfinite",
        type=click.Choice(["omit", "propagate", "error"]),
        help="What NaN and infinities do.  [default: omit]",
    ),
    _moving(
        "--batch-size",
        type=BatchSizes(),
        help="Observations in a batch, for moving statistics, training and sgd.",
    ),
    _input("--num-channels", type=int, metavar="C", help="Assert the number of channels."),
    _input("--expect-shape", metavar="SHAPE", help="Assert the shape, such as '*,3,224,224'."),
    _input(
        "--missing",
        type=click.Choice(["fill", "omit", "error"]),
        help="Chunks that are not stored: read as the fill value, left out of the statistics, or "
        "refused.  [default: fill, with a warning]",
    ),
    _input(
        "--allow-external-refs",
        is_flag=True,
        help="Follow HDF5 links, virtual datasets and raw storage into other files.",
    ),
    _input(
        "--allow-symlinks",
        is_flag=True,
        help="Follow symbolic links that lead out of a Zarr store.",
    ),
    _input(
        "--isolate",
        is_flag=True,
        help="Let child processes alone decode HDF5 and Zarr, for files that nobody vouches for.",
    ),
)

_FIT = (
    _moving(
        "--momentum",
        metavar="M",
        help="Keep an exponential moving average too; M weighs the OLD value (the new one under "
        "the conventions torch and matlab). 'cumulative' averages all batches.",
    ),
    _moving(
        "--moving-variance",
        type=click.Choice(["biased", "unbiased"]),
        help="Divisor n or n-1 of what the moving variance is fed.",
    ),
    _moving(
        "--moving-start",
        metavar="START",
        help="zeros-ones, first-batch, or a statistics file.  [default: zeros-ones]",
    ),
    _moving(
        "--rate-factor",
        type=float,
        metavar="F",
        help="Factor of a layer's learning rate: 0 freezes its moving statistics, as momentum 1 "
        "does; any other leaves them as they are.  [default: 1]",
    ),
    _moving("--update", metavar="STATS", help="Continue earlier statistics with new data."),
    _moving(
        "--part",
        metavar="i/N",
        help="Only the i-th of N parts, from 1; merge joins them.  [default: 1/1]",
    ),
)

_STATISTICS = (
    _statistics("--stats", metavar="STATS", help="Statistics and all settings of a fit."),
    _statistics("--mean", metavar="FILE", help="The mean from a plain array."),
    _statistics("--variance", metavar="FILE", help="The variance from a plain array."),
    _statistics(
        "--estimate",
        type=click.Choice(["pooled", "moving"]),
        help="Which statistics.  [default: moving where the fit kept them]",
    ),
    _statistics(
        "--force",
        is_flag=True,
        help="Take --stats of INPUT also where it has changed since they were taken from it.",
    ),
)

_APPLY = (
    *_STATISTICS,
    _moving("--training", is_flag=True, help="Each batch by its own statistics."),
    _affine("--affine", metavar="FILE", help="Scale and bias from one file."),
    _affine("--scale", metavar="FILE|none", help="The scale; none drops it."),
    _affine("--bias", metavar="FILE|none", help="The bias; none drops it."),
    _statistics("--inverse", is_flag=True, help="Undo: from normalized values back to the data."),
    output_option(
        "--dtype", metavar="TYPE", help="Element type of the output.  [default: by input]"
    ),
    output_option(
        "--overflow",
        type=click.Choice(["error", "saturate"]),
        help="Results that this type cannot hold: refused, or the nearest value that it has, "
        "counted.  [default: error]",
    ),
    output_option(
        "--hdf5-version",
        type=click.Choice(["1.8", "1.10"]),
        help="The oldest HDF5 that shall read an .h5 output; 1.8 has no checksums of its "
        "metadata.  [default: 1.10]",
    ),
    output_option(
        "--stats-out",
        metavar="PATH",
        help="The sidecar.  [default: OUTPUT.stats.json, or .zarr where it outgrows JSON]",
    ),
    output_option("--no-stats-out", is_flag=True, help="Write no sidecar."),
)

_OVERWRITE = output_option("--overwrite", is_flag=True, help="Replace an existing output.")
_DRY_RUN = _run("--dry-run", is_flag=True, help="Print the plan and stop.")

_LOCAL_RUN = (
    _run("-j", "--workers", type=int, metavar="N", help="Blocks in flight.  [default: all CPUs]"),
    _run(
        "--memory",
        metavar="SIZE",
        help="Budget, such as 2GiB.  [default: half of the free memory, within cgroup and SLURM]",
    ),
)

_RUN = (
    _OVERWRITE,
    _run(
        "--restart",
        is_flag=True,
        help="Begin afresh; an interrupted run is continued otherwise.",
    ),
    *_LOCAL_RUN,
    _run("--scheduler", metavar="ADDRESS", help="A dask.distributed scheduler."),
    _run("--scheduler-file", metavar="FILE", help="Its JSON file."),
    _run(
        "--insecure",
        is_flag=True,
        help="Use a scheduler without TLS on a network: whoever reaches it can run code as you.",
    ),
    _DRY_RUN,
)

_SCREEN = (
    _screen("--json", is_flag=True, help="Machine-readable output on stdout."),
    _screen("-q", "--quiet", is_flag=True, help="Only errors."),
    _screen("-v", "--verbose", is_flag=True, help="Tell more."),
    _screen(
        "--progress/--no-progress",
        default=None,
        help="A live bar on a terminal, lines in a log.  [default: on, seldom in a log]",
    ),
    _screen(
        OPTION,
        is_flag=True,
        expose_value=False,
        help="Tell errors and warnings as JSON, one a line, on standard error.",
    ),
    _screen("--debug", is_flag=True, help="Show tracebacks."),
)

axes_options = compose(*_AXES)
norm_options = compose(*_NORM)
statistics_options = compose(*_STATISTICS)
fit_options = compose(*_FIT)
apply_options = compose(*_APPLY)
run_options = compose(*_RUN)
local_run_options = compose(*_LOCAL_RUN)
merge_options = compose(_OVERWRITE, _DRY_RUN)
screen_options = compose(*_SCREEN)


def pick(kind: type[T], options: dict[str, Any]) -> T:
    """Return an options value made of those command-line options that it has fields for."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in options.items() if name in names})
