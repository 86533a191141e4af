"""Each option of the command line, once; commands pick from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

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


_AXES = (
    click.option(
        "--mode",
        type=click.Choice(["batch", "instance", "layer", "group", "custom"]),
        help="Which axes are aggregated.  [default: batch]",
    ),
    click.option(
        "--layout",
        metavar="NCHW",
        help="One letter an axis (N batch, C channel, S D H W L spatial, T time, U any), or "
        "dimension names separated by commas.",
    ),
    click.option("--aggregate", metavar="EXPR", help="Axes to sum over: HW, -1, 2:4, lat,lon, ~C."),
    click.option(
        "--scale-axes", metavar="EXPR", help="Axes of scale and bias, or complement, same, none."
    ),
    click.option(
        "--wolfram-levels",
        is_flag=True,
        help="Read both as levels of one example, from 1 (2;;All), without the batch axis.",
    ),
    click.option("--groups", type=int, metavar="G", help="Groups of channels (mode group)."),
    click.option("--group-axis", metavar="AXIS", help="The axis that groups divide.  [default: C]"),
)

_NORM = (
    *_AXES,
    click.option(
        "--method",
        type=click.Choice(["zscore", "rms", "center", "std", "minmax", "maxabs", "robust", "lp"]),
        help="(x-mean)/sqrt(var+eps); x/sqrt(mean(x^2)+eps); x-mean; x/sqrt(var+eps); "
        "(x-min)/(max-min); x/max(|x|); (x-median)/(q75-q25); x/max(norm,eps).  "
        "[default: zscore]",
    ),
    click.option(
        "--range",
        type=Bounds(),
        help="What minimum and maximum become (method minmax).  [default: 0,1]",
    ),
    click.option(
        "--quantiles",
        type=Bounds(),
        help="Percentages whose distance is divided by (method robust).  [default: 25,75]",
    ),
    click.option(
        "--p",
        type=float,
        metavar="P",
        help="Which norm, from 1 to inf (method lp).  [default: 2]",
    ),
    click.option(
        "--epsilon",
        type=float,
        metavar="E",
        help="Added to the variance; the least norm (method lp).  [default: 1e-5, and 0]",
    ),
    click.option(
        "--epsilon-placement",
        type=click.Choice(["inside", "outside", "floor"]),
        help="sqrt(var+E); sqrt(var)+E; max(sqrt(var),E).  [default: inside]",
    ),
    click.option(
        "--ddof", type=click.IntRange(0, 1), metavar="0|1", help="Divide by n - ddof.  [default: 0]"
    ),
    click.option(
        "--convention",
        type=click.Choice(["wolfram", "keras", "matlab", "torch", "onnx", "sklearn"]),
        help="Take that system's defaults, to reproduce its numbers.",
    ),
    click.option(
        "--nonfinite",
        type=click.Choice(["omit", "propagate", "error"]),
        help="What NaN and infinities do.  [default: omit]",
    ),
    click.option(
        "--batch-size",
        type=BatchSizes(),
        help="Observations in a batch, for moving statistics, training and sgd.",
    ),
    click.option("--num-channels", type=int, metavar="C", help="Assert the number of channels."),
    click.option(
        "--expect-shape", metavar="SHAPE", help="Assert the shape, such as '*,3,224,224'."
    ),
    click.option(
        "--missing",
        type=click.Choice(["fill", "omit", "error"]),
        help="Chunks that are not stored: read as the fill value, left out of the statistics, or "
        "refused.  [default: fill, with a warning]",
    ),
    click.option(
        "--allow-external-refs",
        is_flag=True,
        help="Follow HDF5 links, virtual datasets and raw storage into other files.",
    ),
    click.option(
        "--allow-symlinks",
        is_flag=True,
        help="Follow symbolic links that lead out of a Zarr store.",
    ),
    click.option(
        "--isolate",
        is_flag=True,
        help="Let child processes alone decode HDF5 and Zarr, for files that nobody vouches for.",
    ),
)

_FIT = (
    click.option(
        "--momentum",
        metavar="M",
        help="Keep an exponential moving average too; M weighs the OLD value (the new one under "
        "the conventions torch and matlab). 'cumulative' averages all batches.",
    ),
    click.option(
        "--moving-variance",
        type=click.Choice(["biased", "unbiased"]),
        help="Divisor n or n-1 of what the moving variance is fed.",
    ),
    click.option(
        "--moving-start",
        metavar="START",
        help="zeros-ones, first-batch, or a statistics file.  [default: zeros-ones]",
    ),
    click.option(
        "--rate-factor",
        type=float,
        metavar="F",
        help="Factor of a layer's learning rate: 0 freezes its moving statistics, as momentum 1 "
        "does; any other leaves them as they are.  [default: 1]",
    ),
    click.option("--update", metavar="STATS", help="Continue earlier statistics with new data."),
    click.option(
        "--part",
        metavar="i/N",
        help="Only the i-th of N parts, from 1; merge joins them.  [default: 1/1]",
    ),
)

_APPLY = (
    click.option("--stats", metavar="STATS", help="Statistics and all settings of a fit."),
    click.option("--mean", metavar="FILE", help="The mean from a plain array."),
    click.option("--variance", metavar="FILE", help="The variance from a plain array."),
    click.option(
        "--estimate",
        type=click.Choice(["pooled", "moving"]),
        help="Which statistics.  [default: moving where the fit kept them]",
    ),
    click.option("--training", is_flag=True, help="Each batch by its own statistics."),
    click.option("--affine", metavar="FILE", help="Scale and bias from one file."),
    click.option("--scale", metavar="FILE|none", help="The scale; none drops it."),
    click.option("--bias", metavar="FILE|none", help="The bias; none drops it."),
    click.option("--inverse", is_flag=True, help="Undo: from normalized values back to the data."),
    click.option(
        "--dtype", metavar="TYPE", help="Element type of the output.  [default: by input]"
    ),
    click.option(
        "--hdf5-version",
        type=click.Choice(["1.8", "1.10"]),
        help="The oldest HDF5 that shall read an .h5 output; 1.8 has no checksums of its "
        "metadata.  [default: 1.10]",
    ),
    click.option(
        "--stats-out",
        metavar="PATH",
        help="The sidecar.  [default: OUTPUT.stats.json, or .zarr where it outgrows JSON]",
    ),
    click.option("--no-stats-out", is_flag=True, help="Write no sidecar."),
)

_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")

_LOCAL_RUN = (
    click.option(
        "-j", "--workers", type=int, metavar="N", help="Blocks in flight.  [default: all CPUs]"
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        help="Budget, such as 2GiB.  [default: half of the free memory, within cgroup and SLURM]",
    ),
)

_RUN = (
    _OVERWRITE,
    click.option(
        "--restart",
        is_flag=True,
        help="Begin afresh; an interrupted run is continued otherwise.",
    ),
    *_LOCAL_RUN,
    click.option("--scheduler", metavar="ADDRESS", help="A dask.distributed scheduler."),
    click.option("--scheduler-file", metavar="FILE", help="Its JSON file."),
    _DRY_RUN,
)

_SCREEN = (
    click.option("--json", is_flag=True, help="Machine-readable output on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Only errors."),
    click.option("-v", "--verbose", is_flag=True, help="Tell more."),
    click.option(
        "--progress/--no-progress",
        default=None,
        help="A live bar on a terminal, lines in a log.  [default: on, seldom in a log]",
    ),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)

axes_options = compose(*_AXES)
norm_options = compose(*_NORM)
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
