"""check: would these statistics fit this array? Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from typing import Any

from normcli.api.check_values import compare_values
from normcli.api.drift import changed_inputs
from normcli.api.findings import Finding, finding, misfit, note
from normcli.api.fitted import FittedStatistics
from normcli.api.options import ApplyOptions
from normcli.api.parameters import Known, known_statistics
from normcli.api.preparing import describe
from normcli.arrays.access import ArraySource
from normcli.arrays.opening import open_source
from normcli.arrays.rules import InputRules
from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry, bind, bind_example, is_example
from normcli.domain.layout import Layout, letter_of, parse_layout
from normcli.domain.statistics import SourceDescription
from normcli.errors import InputError, UsageError


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes
    ----------
    stats, input : str
        Names of both.
    same_data : bool
        Whether the input is, by size and content sample, what was measured.
    findings : tuple of Finding
        One for each aspect that was compared.
    looked_at, elements : int
        Elements that were read, and those of the whole array.
    seconds : float
        Wall time.
    """

    stats: str
    input: str
    same_data: bool
    findings: tuple[Finding, ...]
    looked_at: int
    elements: int
    seconds: float

    @property
    def misfits(self) -> tuple[Finding, ...]:
        """The findings because of which the statistics do not fit."""
        return tuple(found for found in self.findings if found.verdict == "misfit")

    @property
    def fits(self) -> bool:
        """Whether there is no misfit."""
        return not self.misfits

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "fits": self.fits, "findings": [asdict(f) for f in self.findings]}


def check_statistics(
    stats: str | FittedStatistics,
    input_name: str,
    *,
    layout: str | None = None,
    estimate: str | None = None,
    rules: InputRules | None = None,
) -> Check:
    """Compare statistics with an array that they might be applied to.

    Parameters
    ----------
    stats : str or FittedStatistics
        Name of a sidecar, or what it holds.
    input_name : str
        Name of an array.
    layout : str, optional
        Layout of the array. That of the statistics without its batch axis says that the array is
        one observation.
    estimate : {"pooled", "moving"}, optional
        Which statistics; None takes the moving ones where the fit kept them.
    rules : InputRules, optional
        How far the input may reach.

    Returns
    -------
    Check

    Raises
    ------
    InputError
        When one of them cannot be read.
    UsageError
        When the input is a pipe, or the layout does not name its axes.
    """
    begin = time.perf_counter()
    if input_name == "-":
        raise UsageError(
            "A pipe cannot be checked, because what was looked at would be gone from it.",
            "Write it to a file.",
        )
    known = known_statistics(ApplyOptions(stats=stats))
    assert known is not None
    if known.stored is None:
        known.statistics.estimate(estimate)  # refuses an estimate that is not there
    with closing(open_source(input_name, rules or InputRules())) as source:
        same = _same_data(known.statistics.source, source)
        ndim = source.info.ndim
        example = is_example(known.statistics.spec, layout, ndim)
        given = None if layout is None else parse_layout(layout, ndim)
        findings = [*_drift(known, source), *_metadata(known, source, example)]
        geometry = _geometry(known, source, example, given, findings)
        looked_at = 0
        if geometry is not None:
            found, looked_at = compare_values(known, source, geometry, estimate, same)
            findings += found
        return Check(
            stats if isinstance(stats, str) else "the statistics",
            source.name,
            same,
            tuple(findings),
            looked_at,
            source.info.size,
            time.perf_counter() - begin,
        )


def _drift(known: Known, source: ArraySource) -> Iterator[Finding]:
    """Tell of an input that is not any more what the statistics were taken from."""
    for path, certain in changed_inputs(known.statistics.source, describe(source)):
        if certain:
            told = f"{path} has changed since the statistics were taken from it"
            yield misfit("input", f"{told}; apply takes --force")
        else:
            told = f"{path} was written to since the statistics were taken from it"
            yield note("input", f"{told}; apply measures it again, to see whether they still hold")


def _same_data(recorded: SourceDescription, source: ArraySource) -> bool:
    own = [(entry.get("size"), entry.get("fingerprint")) for entry in source.identity()]
    then = [(entry.get("size"), entry.get("fingerprint")) for entry in recorded.inputs]
    same_array = recorded.shape == source.info.shape and recorded.dtype == source.info.dtype
    return same_array and own == then and all(print_ for _, print_ in own)


def _metadata(known: Known, source: ArraySource, example: bool) -> Iterator[Finding]:
    """Compare what is known before an element is read."""
    recorded, info = known.statistics.source, source.info
    yield _dtypes(recorded, info)
    layout = known.statistics.spec.layout
    if len(recorded.shape) == layout.ndim:
        layout = Layout(layout.letters, recorded.dims or layout.names)
        layout = layout.of_example() if example else layout
        if layout.ndim == info.ndim:
            yield from _dimensions(info, layout)
    yield from _units(recorded.units, describe(source).units)
    missing = source.missing
    if missing.missing:
        yield note(
            "chunks",
            f"{missing.missing} of {missing.total} chunks are not stored and are read as "
            f"{missing.fill}",
        )


def _dtypes(recorded: SourceDescription, info: ArrayInfo) -> Finding:
    then, now = recorded.dtype.newbyteorder("="), info.dtype.newbyteorder("=")
    if then == now:
        return finding("dtype", f"{now}, as in the fit")
    more = ""
    if (then.kind in "biu") != (now.kind in "biu"):
        more = "; integers often become other units on their way to floats, and back"
    return note("dtype", f"{now}, but the fit was of {then}{more}")


def _dimensions(info: ArrayInfo, layout: Layout) -> Iterator[Finding]:
    then, now = layout.names, info.dims
    if not then or not any(then) or not now or not any(now):
        lacking = "the input" if then and any(then) else "the fit"
        told = f"{lacking} has no dimension names; layout {layout} is taken"
        yield finding("dimensions", told)
        return
    if tuple(map(str.lower, then)) == tuple(map(str.lower, now)):
        yield finding("dimensions", ", ".join(now))
        return
    if sorted(map(str.lower, then)) == sorted(map(str.lower, now)):
        yield misfit(
            "dimensions",
            f"the input has {', '.join(now)}, but the fit was of {', '.join(then)}: "
            "the same in another order",
        )
        return
    for axis, (a, b) in enumerate(zip(then, now, strict=True)):
        if not a or not b or a.lower() == b.lower():
            continue
        told = f"axis {axis} is {b} in the input, but was {a} in the fit"
        alike = letter_of(a) == letter_of(b) != "U"
        yield note("dimensions", told) if alike else misfit("dimensions", told)


def _units(then: str | None, now: str | None) -> Iterator[Finding]:
    if then is None and now is None:
        return
    if then == now:
        yield finding("units", f"{now}, as in the fit")
    elif then is None or now is None:
        own = now or "none"
        yield note("units", f"{own} in the input, {then or 'none'} recorded by the fit")
    else:
        yield misfit("units", f"{now} in the input, but the fit was of {then}")


def _geometry(
    known: Known, source: ArraySource, example: bool, given: Layout | None, findings: list[Finding]
) -> Geometry | None:
    """Compare axes and extents; return the geometry where statistics and array go together."""
    spec, shape = known.statistics.spec, source.info.shape
    layout = spec.layout.of_example() if example else spec.layout
    if given is not None and given.letters != layout.letters:
        told = f"the input has layout {given}, but the fit was of {layout}"
        findings.insert(0, misfit("axes", told))
        return None
    if len(shape) != layout.ndim:
        told = f"the input has {len(shape)} axes (shape {shape}), but layout {layout}"
        told += f" of the fit has {layout.ndim}"
        one = layout.of_example()
        if one.ndim == len(shape) and spec.per_dataset:
            told += f"; one observation without its batch axis is --layout {one}"
        findings.insert(0, misfit("axes", told))
        return None
    try:
        geometry = (bind_example if example else bind)(spec, shape)
    except (UsageError, InputError) as error:
        findings.insert(0, misfit("axes", error.message.rstrip(".")))
        return None
    alone = ", one observation" if example else ""
    findings.insert(0, finding("axes", f"{layout.ndim}, layout {layout}, shape {shape}{alone}"))
    own = known.stored["count"].info.shape if known.stored else known.statistics.shape
    wrong = False
    for axis, needed, held in zip(geometry.kept, geometry.statistics_shape, own, strict=True):
        name = f"axis {axis} ({layout.axis_label(axis)})"
        about = "channels" if axis == layout.channel_axis else "extents"
        if axis == geometry.divided_axis:
            name = f"segments of {name}"
        if needed == held:
            findings.insert(1, finding(about, f"{name}: {needed}, as in the fit"))
        else:
            told = f"{name}: the input has {needed}, but the statistics are of {held}"
            findings.insert(1, misfit(about, told))
            wrong = True
    try:
        axes = ", ".join(layout.axis_label(axis) for axis in geometry.scale_axes)
        axes = axes or "none (a scalar)"
        known.statistics.affine.fitted(geometry.scale_shape, axes)
    except InputError as error:
        findings.append(misfit("scale and bias", error.message.rstrip(".")))
    return None if wrong else geometry
