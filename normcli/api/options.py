"""The options of a run as values, with the names and defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normcli.domain.affine import Affine


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a run happens.

    Attributes
    ----------
    overwrite : bool
        Replace an existing output; it stays until the new one is complete.
    workers : int, optional
        Blocks in flight at once; None takes the CPUs this process may use.
    memory : int or str, optional
        Budget for blocks and statistics, in bytes or as ``"2GiB"``; None takes the smallest of
        half of the free memory and three quarters of the control group's and SLURM's limits.
    scheduler : str, optional
        Address of a dask.distributed scheduler.
    scheduler_file : str, optional
        The JSON file of a dask.distributed scheduler.
    insecure : bool
        Use a scheduler without TLS that is not on the loopback address: whoever reaches it can run
        code as the user.
    dry_run : bool
        Only plan.
    restart : bool
        Begin afresh, also where an interrupted run could be continued.
    """

    overwrite: bool = False
    workers: int | None = None
    memory: int | str | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    insecure: bool = False
    dry_run: bool = False
    restart: bool = False


@dataclass(frozen=True, kw_only=True)
class NormOptions:
    """What is normalized over what. None means the default, or what the statistics say.

    Attributes
    ----------
    mode : {"batch", "instance", "layer", "group", "custom"}, optional
        Preset of the axes.
    layout : str, optional
        One letter an axis (``NCHW``), or dimension names separated by commas.
    aggregate, scale_axes : str, optional
        Axis expressions; `scale_axes` also takes ``complement`` and ``same``.
    wolfram_levels : bool
        Read both as Wolfram levels: from 1, ends included, the batch axis not counted.
    groups : int, optional
        Number of groups of channels.
    group_axis : str, optional
        The axis that groups divide, in place of C.
    method : {"zscore", "rms", "center", "std", "minmax", "maxabs", "robust", "lp"}, optional
        What is subtracted and divided by.
    range : tuple of float, optional
        What minimum and maximum become with the method ``minmax``; 0 and 1.
    quantiles : tuple of float, optional
        Percentages between which the method ``robust`` takes the spread; 25 and 75.
    p : float, optional
        The norm that the method ``lp`` divides by, 1 or more, or ``inf``; 2.
    epsilon : float, optional
        Added to the variance; 1e-5, or the convention's.
    epsilon_placement : {"inside", "outside", "floor"}, optional
        ``sqrt(var + eps)``, ``sqrt(var) + eps`` or ``max(sqrt(var), eps)``.
    ddof : {0, 1}, optional
        The variance is divided by n - ddof.
    convention : {"wolfram", "keras", "matlab", "torch", "onnx", "sklearn"}, optional
        Take the defaults of that system.
    nonfinite : {"omit", "propagate", "error"}, optional
        What NaN and infinities do.
    batch_size : int or tuple of int, optional
        Observations in a batch, for moving statistics and training; the last one repeats.
    num_channels : int, optional
        Assert the extent of C.
    expect_shape : str, optional
        Assert the shape, with ``*`` for any extent.
    missing : {"fill", "omit", "error"}, optional
        Read chunks that are not stored as the fill value, leave them out of the statistics, or
        refuse them. None fills, but refuses an array of which nearly nothing is stored.
    allow_external_refs : bool
        Follow HDF5 links, virtual datasets and raw storage into other files.
    allow_symlinks : bool
        Follow symbolic links that lead out of a Zarr store.
    isolate : bool
        Let child processes alone read and decode HDF5 and Zarr, so that a chunk that kills, blocks
        or bloats a library is an error that names it.
    """

    mode: str | None = None
    layout: str | None = None
    aggregate: str | None = None
    scale_axes: str | None = None
    wolfram_levels: bool = False
    groups: int | None = None
    group_axis: str | None = None
    method: str | None = None
    range: tuple[float, float] | None = None
    quantiles: tuple[float, float] | None = None
    p: float | None = None
    epsilon: float | None = None
    epsilon_placement: str | None = None
    ddof: int | None = None
    convention: str | None = None
    nonfinite: str | None = None
    batch_size: int | tuple[int, ...] | None = None
    num_channels: int | None = None
    expect_shape: str | None = None
    missing: str | None = None
    allow_external_refs: bool = False
    allow_symlinks: bool = False
    isolate: bool = False


@dataclass(frozen=True, kw_only=True)
class FitOptions(NormOptions):
    """What a fit computes, beside the axes.

    Attributes
    ----------
    momentum : float or {"cumulative"}, optional
        Weight of the old value in the moving average (of the new one under the conventions
        ``torch`` and ``matlab``), or the plain average of batch statistics.
    moving_variance : {"biased", "unbiased"}, optional
        Divisor n or n - 1 of what the moving variance is fed.
    moving_start : str, optional
        ``zeros-ones``, ``first-batch``, or a statistics file.
    rate_factor : float, optional
        Factor of a layer's learning rate (Wolfram's LearningRateMultipliers): 0 freezes its
        moving statistics, any other leaves them as they are.
    update : str or Path, optional
        Earlier statistics to continue.
    part : str, optional
        Measure one of N parts only: ``"3/16"``; ``normcli merge`` joins them.
    """

    momentum: float | str | None = None
    moving_variance: str | None = None
    moving_start: str | None = None
    rate_factor: float | None = None
    update: str | Path | None = None
    part: str | None = None


@dataclass(frozen=True, kw_only=True)
class ApplyOptions(NormOptions):
    """What an apply normalizes with.

    Attributes
    ----------
    stats : str, Path or FittedStatistics, optional
        Statistics and all settings of a fit.
    mean, variance : str or Path, optional
        Statistics from plain arrays, in place of a sidecar.
    estimate : {"pooled", "moving"}, optional
        Which of them; the moving ones where the fit kept them.
    force : bool
        Take `stats` also where the input has changed since they were taken from it.
    training : bool
        Normalize each batch of `batch_size` observations by its own statistics.
    affine : str, Path or Affine, optional
        File with scale and bias.
    scale, bias : str or Path, optional
        Files with one of them each; ``"none"`` drops the term.
    inverse : bool
        Undo: from normalized values back to the data.
    dtype : str, optional
        Element type of the output.
    overflow : {"error", "saturate"}, optional
        What becomes of results that this type cannot hold: refused (the default), or the nearest
        value that it has (its limit, infinity, or 0 for NaN in integers), which is counted.
    hdf5_version : {"1.8", "1.10"}, optional
        The oldest HDF5 that shall read an HDF5 output; 1.10 where it is None.
    stats_out : str, Path or bool
        Path of the sidecar; True takes ``OUTPUT.stats.json`` (or ``.zarr`` where it outgrows
        JSON), False writes none.
    """

    stats: Any = None
    mean: str | Path | None = None
    variance: str | Path | None = None
    estimate: str | None = None
    force: bool = False
    training: bool = False
    affine: str | Path | Affine | None = None
    scale: str | Path | None = None
    bias: str | Path | None = None
    inverse: bool = False
    dtype: str | None = None
    overflow: str | None = None
    hdf5_version: str | None = None
    stats_out: str | Path | bool = True
