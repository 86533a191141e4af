"""The Python face: what the command line does, as functions. The one room where all others meet.

Examples
--------
>>> import normcli
>>> stats = normcli.fit("sample_data/wine.zarr/measurements", layout="NC")
>>> stats.mean.shape, int(stats.count[0])
((13,), 178)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normcli.api.applying import apply_array
from normcli.api.checking import Check, check_statistics
from normcli.api.exchange import convert, extract, init
from normcli.api.fitted import FittedStatistics, read_statistics
from normcli.api.fitting import fit_arrays
from normcli.api.learning import LearnOutcome, learn_arrays
from normcli.api.learning_options import LearnOptions
from normcli.api.merging import merge_statistics
from normcli.api.options import ApplyOptions, FitOptions, RunOptions
from normcli.arrays.rules import InputRules
from normcli.bundles.statistics_file import read_statistics_header
from normcli.engine.events import Observer
from normcli.engine.report import Report

__all__ = [
    "Check",
    "FittedStatistics",
    "LearnOutcome",
    "apply",
    "check",
    "convert",
    "extract",
    "fit",
    "init",
    "learn",
    "merge",
    "read_statistics",
]

_RUN = RunOptions.__dataclass_fields__.keys() - {"dry_run"}


def fit(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> FittedStatistics:
    """Measure arrays in one pass: the function behind ``normcli fit``.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Arrays by name (``x.npy``, ``file.h5/group/x``, ``store.zarr``); several are one dataset,
        joined along the batch axis.
    output : str or Path, optional
        Sidecar to write.
    observer : Observer, optional
        Hears of progress and warnings.
    **options
        The fields of `FitOptions` and `RunOptions`, which are the options of the command line
        with underscores: ``mode="instance"``, ``layout="NCHW"``, ``memory="2GiB"``, …

    Returns
    -------
    FittedStatistics
        Without mean and variance where more than a million groups were written by block.

    Raises
    ------
    NormcliError
        As `normcli.errors` lists them; nothing is left under the output's name then.

    Examples
    --------
    >>> import normcli
    >>> stats = normcli.fit("sample_data/co2.h5/co2/weekly", layout="T")
    >>> round(float(stats.mean), 4), int(stats.statistics.moments.nonfinite)
    (340.1422, 59)
    """
    run, rest = _split(options)
    names = _names(inputs)
    place = None if output is None else str(output)
    outcome = fit_arrays(names, place, FitOptions(**rest), run, observer or Observer())
    statistics = outcome.statistics
    if statistics is None:
        # Too many groups for memory: what is returned knows where they are complete.
        statistics = read_statistics_header(str(place))
        assert statistics is not None
    return FittedStatistics(statistics)


def merge(
    statistics: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> FittedStatistics:
    """Join statistics into those of one fit of all their inputs: ``normcli merge``.

    Parameters
    ----------
    statistics : sequence of str or Path
        Sidecars: all parts of an input (``fit(..., part="3/16")``), or fits of several inputs,
        which follow each other along the batch axis.
    output : str or Path, optional
        Sidecar to write.
    overwrite : bool
        Whether an existing one may be replaced.
    observer : Observer, optional
        Hears of warnings.

    Returns
    -------
    FittedStatistics

    Raises
    ------
    InputError
        When parts are missing or doubled, an input would be counted twice, settings differ, or
        the statistics are moving ones.

    Examples
    --------
    >>> import normcli, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in (1, 2):
    ...     part = normcli.fit("sample_data/digits.npy", folder / f"{i}.json", part=f"{i}/2")
    >>> whole = normcli.merge([folder / "1.json", folder / "2.json"])
    >>> int(whole.count.sum())
    115008
    """
    place = None if output is None else str(output)
    paths = [str(path) for path in statistics]
    outcome = merge_statistics(paths, place, overwrite, False, observer or Observer())
    return FittedStatistics(outcome.statistics)


def apply(
    input: str | Path,
    output: str | Path,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> Report:
    """Normalize an array: the function behind ``normcli apply``.

    Parameters
    ----------
    input, output : str or Path
        Arrays by name; the suffix of `output` decides its format.
    observer : Observer, optional
        Hears of progress and warnings.
    **options
        The fields of `ApplyOptions` and `RunOptions`, which are the options of the command line
        with underscores: ``stats="s.json"``, ``mode="layer"``, ``inverse=True``, …

    Returns
    -------
    Report
        Groups, non-finite values, mean and standard deviation of what was written, time.

    Raises
    ------
    NormcliError
        As `normcli.errors` lists them; nothing is left under the output's name then.

    Examples
    --------
    >>> import normcli, tempfile, pathlib
    >>> out = pathlib.Path(tempfile.mkdtemp()) / "normalized.zarr"
    >>> report = normcli.apply("sample_data/patches.zarr", out, mode="instance")
    >>> report.passes, report.tally.groups, abs(report.written_mean) < 1e-6
    (1, 192, True)
    """
    run, rest = _split(options)
    outcome = apply_array(
        str(input), str(output), ApplyOptions(**rest), run, observer or Observer()
    )
    assert outcome.report is not None
    return outcome.report


def check(
    stats: str | Path | FittedStatistics,
    input: str | Path,
    *,
    layout: str | None = None,
    estimate: str | None = None,
    allow_external_refs: bool = False,
    allow_symlinks: bool = False,
) -> Check:
    """Compare statistics with an array before an apply: the function behind ``normcli check``.

    Nothing is written. The range is that of a sample: at most 16 blocks of about 1 MiB.

    Parameters
    ----------
    stats : str, Path or FittedStatistics
        A sidecar, or what `fit` and `read_statistics` return.
    input : str or Path
        An array by name.
    layout : str, optional
        Layout of the array; ``"CHW"`` with statistics of ``"NCHW"`` is one observation.
    estimate : {"pooled", "moving"}, optional
        Which statistics; None takes the moving ones where the fit kept them.
    allow_external_refs, allow_symlinks : bool
        Follow links out of HDF5 files and Zarr stores.

    Returns
    -------
    Check
        ``fits``, and one finding for each aspect: axes, channels, dtype, units, range, epsilon.

    Raises
    ------
    InputError
        When one of them cannot be read.

    Examples
    --------
    >>> import normcli
    >>> stats = normcli.fit("sample_data/patches.zarr")
    >>> found = normcli.check(stats, "sample_data/patches.zarr")
    >>> found.fits, found.same_data
    (True, True)
    >>> normcli.check(stats, "sample_data/wine.zarr/measurements").misfits[0].text
    'the input has 2 axes (shape (178, 13)), but layout NCSS of the fit has 4'
    """
    whose = stats if isinstance(stats, FittedStatistics) else str(stats)
    rules = InputRules(allow_external_refs, allow_symlinks)
    return check_statistics(whose, str(input), layout=layout, estimate=estimate, rules=rules)


def learn(
    input: str | Path,
    target: str | Path,
    output: str | Path | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> LearnOutcome:
    """Learn scale and bias against a target: the function behind ``normcli learn``.

    Parameters
    ----------
    input, target : str or Path
        Arrays of the same shape, by name.
    output : str or Path, optional
        File for scale and bias, which ``apply(..., affine=output)`` takes.
    observer : Observer, optional
        Hears of progress, warnings and the loss.
    **options
        The fields of `LearnOptions` and `RunOptions`, which are the options of the command line
        with underscores: ``stats="s.json"``, ``solver="sgd"``, ``scale_bounds=(0, None)``, …

    Returns
    -------
    LearnOutcome
        ``affine.scale`` and ``affine.bias``, float64, with the extents of the scale axes; a
        dropped term is None. ``report.learned["losses"]`` has the loss at the start and after.

    Raises
    ------
    NormcliError
        As `normcli.errors` lists them; nothing is left under the output's name then.

    Examples
    --------
    Against itself, what is learned undoes the normalization:

    >>> import normcli
    >>> wine = "sample_data/wine.zarr/measurements"
    >>> found = normcli.learn(wine, wine, layout="NC", epsilon=0)
    >>> stats = normcli.fit(wine, layout="NC")
    >>> bool(abs(found.affine.scale / stats.std - 1).max() < 1e-12)
    True
    """
    run, rest = _split(options)
    names = (str(input), str(target), None if output is None else str(output))
    return learn_arrays(*names, LearnOptions(**rest), run, observer or Observer())


def _names(inputs: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(inputs, str | Path):
        return [str(inputs)]
    return [str(name) for name in inputs]


def _split(options: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    run = {name: value for name, value in options.items() if name in _RUN}
    rest = {name: value for name, value in options.items() if name not in _RUN}
    return RunOptions(**run), rest
