"""What the values of an array say about statistics: range, spread, epsilon, non-finite values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from normcli.api.findings import Finding, finding, misfit, note
from normcli.api.parameters import Known
from normcli.api.sampling import BLOCKS, SampledBlock, count_outside, sample_grid, sampled
from normcli.arrays.access import ArraySource
from normcli.domain.constancy import constant_groups
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.domain.moment_kinds import RESTS, moments_from, plain
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import Statistics
from normcli.domain.usability import require_resolved
from normcli.engine.report import NAMED_GROUPS, damped_groups, group_names
from normcli.errors import DataPolicyError

Verdict = Callable[[str, str], Finding]

# More than this share of a group's elements, at least half the range of the fit beyond it, are no
# outliers.
FAR_SHARE = 0.01
# Of standard deviations: data in other units, such as 0 to 1 in place of 0 to 255.
NARROW = 1 / 50
# Of a group's mean in standard deviations, where the extremes are not known.
DISTANT = 10.0
# Elements of a group from which its standard deviation says something.
_ENOUGH = 100


@dataclass
class _Seen:
    """What the sample adds up to for some groups; `origin` is the first of them."""

    fit: Moments | None
    mean: np.ndarray
    variance: np.ndarray
    origin: tuple[int, ...]
    sample: Moments
    outside: np.ndarray
    far: np.ndarray

    def add(self, found: SampledBlock, geometry: Geometry, index: tuple[slice, ...]) -> None:
        """Add a block, whose groups are at `index`."""
        self.sample.store(index, self.sample[index].merge(found.moments))
        if self.fit is None:
            return
        low, high = self.fit.minimum[index], self.fit.maximum[index]
        with np.errstate(over="ignore", invalid="ignore"):
            reach = np.where(self.fit.count[index] > 0, (high - low) / 2, 0.0)
            far_low, far_high = low - reach, high + reach
        self.outside[index] += count_outside(found, geometry, low, high)
        self.far[index] += count_outside(found, geometry, far_low, far_high)


def compare_values(
    known: Known, source: ArraySource, geometry: Geometry, estimate: str | None, same: bool
) -> tuple[list[Finding], int]:
    """Compare a sample of an array with statistics of the same extents.

    Parameters
    ----------
    known : Known
        The statistics.
    source : ArraySource
        The array.
    geometry : Geometry
        The groups of its elements.
    estimate : {"pooled", "moving"}, optional
        Which mean and variance would be applied.
    same : bool
        Whether the array is what was measured, so that what is odd about it is no misfit.

    Returns
    -------
    findings : list of Finding
    looked_at : int
        Elements that were read.
    """
    held = None if known.stored else _held(known.statistics, estimate, geometry)
    parts: list[_Seen] = [] if held is None else [held]
    looked_at = blocks = 0
    total = len(sample_grid(source.info))
    for found in sampled(source, geometry):
        looked_at += found.block.size
        blocks += 1
        if held is not None:
            held.add(found, geometry, found.index)
        else:
            part = _stored(known, found.index)
            part.add(found, geometry, tuple(slice(0, n) for n in part.mean.shape))
            parts.append(part)
    size = source.info.size
    findings = [
        finding(
            "sample", f"{looked_at} of {size} elements looked at, in {blocks} of {total} blocks"
        )
    ]
    if blocks < min(total, BLOCKS):
        findings = [note("sample", f"{findings[0].text}; slow storage ended it early")]
    odd = note if same else misfit
    spec, dtype = known.statistics.spec, known.statistics.source.dtype
    findings += _range(parts, spec, dtype, odd)
    findings += _spread(parts, odd)
    findings += _nonfinite(parts, spec, odd)
    findings += _epsilon(parts, known.statistics)
    moving = known.statistics.moving if estimate != "pooled" else None
    # Earlier versions did not keep what the rounding of a moving mean took away.
    lacking = moving is not None and moving.beyond is None
    findings += _resolution(parts, source, spec, lacking)
    return findings, looked_at


def _held(statistics: Statistics, estimate: str | None, geometry: Geometry) -> _Seen:
    mean, variance = statistics.estimate(estimate)
    return _seen(statistics.moments, mean, variance, (0,) * len(geometry.statistics_shape))


def _stored(known: Known, index: tuple[slice, ...]) -> _Seen:
    assert known.stored is not None
    block = Block(0, tuple(s.start for s in index), tuple(s.stop for s in index))
    wide = any(name in known.stored for name in RESTS)
    held = {
        name: array.read(block)
        for name, array in known.stored.items()
        if wide or name in Moments.names()
    }
    moments = moments_from(known.statistics.spec, held) if wide else Moments(**held)
    pooled = replace(known.statistics, moments=moments).pooled()
    return _seen(moments, *pooled, block.start)


def _seen(
    moments: Moments | None, mean: np.ndarray, variance: np.ndarray, origin: tuple[int, ...]
) -> _Seen:
    shape = mean.shape
    none = Moments.identity(shape)
    counts = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    return _Seen(moments, mean, variance, origin, none, *counts)


def _range(parts: list[_Seen], spec: NormSpec, dtype: np.dtype, odd: Verdict) -> Iterator[Finding]:
    """Compare with the extremes of the fit, or with its mean where it knows none."""
    outside = far = groups = varying = 0
    names: tuple[str, ...] = ()
    varying_names: tuple[str, ...] = ()
    worst: tuple[float, str] = (-1.0, "")
    for part in parts:
        if part.fit is None:
            yield from _distance(part, spec, odd)
            continue
        seen = (part.sample.count > 0) & (part.fit.count > 0)
        constant = constant_groups(part.fit, dtype) & seen
        moved = constant & (part.outside > 0)
        varying += int(moved.sum())
        varying_names += group_names(spec, moved, part.origin)
        far_groups = seen & ~constant & (part.far > FAR_SHARE * part.sample.count)
        outside += int(part.outside.sum())
        far += int(part.far[far_groups].sum())
        groups += int(far_groups.sum())
        names += group_names(spec, far_groups, part.origin)
        with np.errstate(all="ignore"):
            below = part.fit.minimum - part.sample.minimum
            above = part.sample.maximum - part.fit.maximum
            excess = np.where(seen, np.maximum(below, above), -np.inf)
        if excess.size and float(excess.max()) > worst[0]:
            at = np.unravel_index(int(excess.argmax()), excess.shape)
            name = group_names(spec, _only(excess.shape, at), part.origin)[0]
            worst = (
                float(excess.max()),
                f"{name}: {part.sample.minimum[at]:.6g} to {part.sample.maximum[at]:.6g} here, "
                f"{part.fit.minimum[at]:.6g} to {part.fit.maximum[at]:.6g} in the fit",
            )
    if varying:
        yield odd(
            "range",
            f"{varying} groups ({_listed(varying_names, varying)}) hold one value in the fit, but "
            "others here",
        )
    if groups:
        yield odd(
            "range",
            f"{far} elements of {groups} groups ({_listed(names, groups)}) lie beyond the range "
            f"of the fit by half of it or more; {worst[1]}",
        )
    elif outside and not varying:
        yield note("range", f"{outside} elements lie outside of the range of the fit; {worst[1]}")
    elif not outside and any(part.fit is not None for part in parts):
        yield finding("range", "no element looked at lies outside of the range of the fit")


def _distance(part: _Seen, spec: NormSpec, odd: Verdict) -> Iterator[Finding]:
    seen = (part.sample.count > 0) & (part.variance > 0)
    deviation = np.sqrt(np.where(seen, part.variance, 1.0))
    distance = np.where(seen, np.abs(part.sample.mean - part.mean) / deviation, 0.0)
    away = distance > DISTANT
    if away.any():
        names = _listed(group_names(spec, away, part.origin), int(away.sum()))
        yield odd(
            "range",
            f"the mean of {int(away.sum())} groups ({names}) is {float(distance.max()):.3g} "
            "standard deviations from that of the statistics",
        )
    else:
        yield finding("range", "the statistics know no extremes; means are near theirs")


def _spread(parts: list[_Seen], odd: Verdict) -> Iterator[Finding]:
    """Find data that vary far less than those of the fit, in every group."""
    widest = (0.0, 0.0, 0.0)
    for part in parts:
        drawn = part.sample.variance()
        # What leaves float64 tells nothing.
        seen = (part.sample.count >= _ENOUGH) & (part.variance > 0)
        seen &= np.isfinite(part.variance) & np.isfinite(drawn)
        if not seen.any():
            continue
        own = np.sqrt(drawn[seen])
        then = np.sqrt(part.variance[seen])
        at = int(np.argmax(own / then))
        widest = max(widest, (float(own[at] / then[at]), float(own[at]), float(then[at])))
    if 0 < widest[0] < NARROW:
        yield odd(
            "spread",
            f"the elements looked at have a standard deviation of {widest[1]:.3g} at most, but "
            f"{widest[2]:.3g} in the fit, as data in other units do",
        )


def _nonfinite(parts: list[_Seen], spec: NormSpec, odd: Verdict) -> Iterator[Finding]:
    bad = sum(int(part.sample.nonfinite.sum()) for part in parts)
    then = sum(int(part.fit.nonfinite.sum()) for part in parts if part.fit is not None)
    if bad and spec.nonfinite == "error":
        yield odd("non-finite", f"{bad} values are NaN or infinite, which the fit refuses")
    elif bad and not then:
        yield note("non-finite", f"{bad} values are NaN or infinite; the fit had none")
    lost = 0
    names: tuple[str, ...] = ()
    for part in parts:
        empty = np.isnan(part.mean) & (part.sample.count > 0)
        lost += int(empty.sum())
        names += group_names(spec, empty, part.origin)
    if lost:
        yield odd(
            "non-finite",
            f"{lost} groups ({_listed(names, lost)}) have no mean in the fit and would become NaN",
        )


def _epsilon(parts: list[_Seen], statistics: Statistics) -> Iterator[Finding]:
    """Compare epsilon with the variances, as an apply does."""
    spec, dtype = statistics.spec, statistics.source.dtype
    damped = groups = 0
    smallest = np.inf
    for part in parts:
        flat = np.zeros(part.mean.shape, bool)
        if part.fit is not None:
            flat = constant_groups(part.fit, dtype)
        hit = damped_groups(spec, part.variance, flat)
        groups += hit.size
        damped += int(hit.sum())
        smallest = min(smallest, float(np.min(part.variance, where=hit, initial=np.inf)))
    told = f"{spec.epsilon:g}"
    if not damped:
        yield finding("epsilon", f"{told}, at most 1 % of the variance of each group that varies")
        return
    told = f"{told} exceeds 1 % of the variance of {damped} of {groups} groups (the smallest is "
    told += f"{smallest:.3g})"
    if spec.epsilon_given or not spec.per_dataset:
        yield note("epsilon", told)
    else:
        yield misfit("epsilon", f"{told}; nobody chose it, so that apply refuses: --epsilon 0")


def _resolution(
    parts: list[_Seen], source: ArraySource, spec: NormSpec, lacking: bool
) -> Iterator[Finding]:
    try:
        for part in parts:
            if part.fit is not None:
                fit = plain(part.fit) if lacking else part.fit
                require_resolved(fit, source.info.dtype, source.name, spec)
    except DataPolicyError as error:
        yield misfit("range", error.message.rstrip("."))


def _only(shape: tuple[int, ...], at: tuple[np.intp, ...]) -> np.ndarray:
    chosen = np.zeros(shape, bool)
    chosen[at] = True
    return chosen


def _listed(names: tuple[str, ...], total: int) -> str:
    return "; ".join(names[:NAMED_GROUPS]) + ("; …" if total > NAMED_GROUPS else "")
