"""Which moving statistics the options ask for, and where they start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from normcli.api.options import FitOptions
from normcli.api.preparing import batch_sizes
from normcli.bundles.statistics_file import read_statistics
from normcli.domain.conventions import convention as find_convention
from normcli.domain.moment_kinds import plain
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import Statistics, require_whole
from normcli.domain.usability import require_resolved
from normcli.domain.wide_moving import start_of
from normcli.errors import InputError, UsageError

STARTS = ("zeros-ones", "first-batch")


def moving_rule(options: FitOptions, earlier: Statistics | None) -> MovingRule | None:
    """Return the rule of the moving statistics, or None where only pooled ones are kept.

    Parameters
    ----------
    options : FitOptions
        What the user gave.
    earlier : Statistics or None
        Statistics that are continued; their rule goes on where no other is given.

    Raises
    ------
    UsageError
        When options are missing, out of range or contradict the earlier statistics.
    """
    sizes = batch_sizes(options.batch_size)
    before = earlier.moving.rule if earlier is not None and earlier.moving is not None else None
    factor = options.rate_factor
    if factor is not None and not 0 <= factor < np.inf:
        raise UsageError(f"--rate-factor {factor:g} must be 0 or more.")
    if before is not None:
        if options.moving_start is not None:
            raise UsageError(
                f"--moving-start {options.moving_start}: the moving statistics of --update go on "
                "from where they are.",
                "Leave one of the two out.",
            )
        before = replace(before, frozen=factor == 0)
    if sizes is None:
        for name in ("momentum", "moving_variance", "moving_start", "rate_factor"):
            if name == "rate_factor" and before is not None:
                continue  # It goes with the batches of what is continued.
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} needs --batch-size.",
                    "Moving statistics are taken over consecutive batches of observations.",
                )
        return before
    system = find_convention(options.convention)
    if options.momentum is None and options.convention is None and before is None:
        raise UsageError(
            "--batch-size needs --momentum (or a --convention, whose momentum it takes).",
            "For example: --momentum 0.9 --batch-size 32, or --momentum cumulative.",
        )
    if options.momentum is None and before is not None:
        momentum = before.momentum
    elif options.momentum == "cumulative":
        momentum = None
    else:
        momentum = system.old_weight(_momentum(options.momentum, system.momentum))
    instances = options.mode == "instance" and options.convention == "torch"
    if instances and momentum is None:
        raise UsageError(
            "--momentum cumulative does not go with --mode instance: PyTorch's InstanceNorm keeps "
            "no plain average of batches.",
            "Give --momentum M, the weight of the new value.",
        )
    default = before.variance if before is not None else system.moving_variance
    variance = options.moving_variance or default
    if variance not in ("biased", "unbiased"):
        raise UsageError(f"--moving-variance {variance!r} must be biased or unbiased.")
    start = options.moving_start or "zeros-ones"
    rule = MovingRule(momentum, sizes, variance, start, instances, frozen=factor == 0)
    if before is not None and (before.momentum, before.variance) != (momentum, variance):
        raise UsageError(
            f"The earlier statistics were kept with momentum {_name(before.momentum)} and the "
            f"{before.variance} variance, not {_name(momentum)} and {variance}.",
            "Continue with the same settings, or fit afresh.",
        )
    return rule


def moving_start(
    rule: MovingRule, earlier: Statistics | None, shape: tuple[int, ...], spec: NormSpec
) -> MovingStatistics:
    """Return the moving statistics that the first batch is folded into.

    Parameters
    ----------
    rule : MovingRule
        How they are kept.
    earlier : Statistics or None
        Statistics that are continued.
    shape : tuple of int
        Extents of the statistics.
    spec : NormSpec
        Names the axes in messages.

    Raises
    ------
    InputError
        When a file of start values has another shape.
    DataPolicyError
        When integers were beyond 2**53, and what the rounding of their mean took away is not
        known: statistics of an earlier version.
    """
    if earlier is not None and earlier.moving is not None:
        _require_rests(earlier, "What --update continues")
        return replace(earlier.moving, rule=replace(rule, start=earlier.moving.rule.start))
    if rule.start in STARTS:
        return MovingStatistics.begin(rule, shape)
    start = read_statistics(rule.start)
    require_whole(start, rule.start)
    mean, variance = start.estimate()
    if mean.shape != shape:
        raise InputError(
            f"The start values in {rule.start} have shape {mean.shape}, but the statistics of "
            f"{spec.layout} have {shape}."
        )
    _require_rests(start, rule.start)
    beyond = None
    if start.moving is not None:
        beyond = start.moving.beyond
    elif start.moments is not None:
        mean, variance, beyond = start_of(start.moments, mean, variance, start.spec.ddof)
    return MovingStatistics(rule, np.array(mean), np.array(variance), beyond=beyond)


def _require_rests(start: Statistics, where: str) -> None:
    """Refuse a start that lacks what the rounding of the mean of integers took away."""
    moments, moving = start.moments, start.moving
    if moments is None or (moving is not None and moving.beyond is not None):
        return
    if moving is not None:
        moments = plain(moments)
    hint = "Fit afresh: this version keeps what an earlier one did not."
    require_resolved(moments, start.source.dtype, where, start.spec, hint)


def earlier_statistics(path: str | Path | None) -> Statistics | None:
    """Read the statistics that a fit continues."""
    if path is None:
        return None
    earlier = read_statistics(str(path))
    require_whole(earlier, str(path))
    if earlier.moments is None:
        raise InputError(
            f"{path} holds a mean and a variance without counts, which cannot be continued.",
            "Fit afresh from the data.",
        )
    return earlier


def _momentum(given: float | str | None, default: float) -> float:
    if given is None:
        return default
    try:
        momentum = float(given)
    except ValueError:
        momentum = -1.0
    if not 0 <= momentum <= 1:
        raise UsageError(f"--momentum {given} must be from 0 to 1, or 'cumulative'.")
    return momentum


def _name(momentum: float | None) -> str:
    return "cumulative" if momentum is None else f"{momentum:g} (weight of the old value)"
