"""Statistics in files: sidecars of every format."""

from __future__ import annotations

from pathlib import Path

from normcli.bundles.array_checks import to_float64
from normcli.bundles.exact_sums import EXACT_NAMES
from normcli.bundles.formats import draft_bundle, read_bundle, write_bundle
from normcli.bundles.json_file import MAX_VALUES
from normcli.bundles.json_values import written_values
from normcli.bundles.replacing import holds_marked, refuse_foreign
from normcli.bundles.sketch_arrays import SKETCH_NAMES
from normcli.bundles.statistics_attributes import SCHEMA, attributes_from_attrs
from normcli.bundles.statistics_bundle import (
    ARRAY_NAMES,
    METHOD_NAMES,
    WIDE_NAMES,
    statistics_bundle,
    statistics_from_bundle,
)
from normcli.domain.affine import Affine
from normcli.domain.statistics import Statistics
from normcli.publishing import Draft


def read_statistics(path: str) -> Statistics:
    """Read statistics from a sidecar of any format.

    Raises
    ------
    InputError
        When the file is missing or malformed, or holds no statistics.
    DataPolicyError
        When a variance is negative.
    """
    return statistics_from_bundle(read_bundle(path), path)


def write_statistics(path: str, stats: Statistics, overwrite: bool = False) -> None:
    """Write statistics to a sidecar, in the format of its suffix.

    Raises
    ------
    UsageError
        When the suffix is unknown, the file exists, or JSON would hold too many values.
    OutputError
        When storage fails; nothing is left then.
    """
    refuse_other_than_statistics(path, overwrite)
    write_bundle(path, statistics_bundle(_for_format(path, stats)), overwrite)


def refuse_other_than_statistics(path: str, overwrite: bool) -> None:
    """Raise UsageError when a file exists that statistics must not replace."""
    known = (*ARRAY_NAMES, *METHOD_NAMES, *WIDE_NAMES, *EXACT_NAMES, *SKETCH_NAMES)
    refuse_foreign(path, overwrite, "statistics", lambda name: holds_marked(name, SCHEMA, known))


def draft_statistics(
    path: str, stats: Statistics, overwrite: bool = False, folder: Path | None = None
) -> Draft:
    """Write statistics as a complete draft of a sidecar, which the caller publishes or discards.

    Parameters
    ----------
    path, stats, overwrite
        As of `write_statistics`.
    folder : Path, optional
        Where to write the draft; beside `path` without it.

    Raises
    ------
    UsageError, OutputError
        As `write_statistics`.
    """
    refuse_other_than_statistics(path, overwrite)
    return draft_bundle(path, statistics_bundle(_for_format(path, stats)), overwrite, folder)


def _for_format(path: str, stats: Statistics) -> Statistics:
    """Return statistics without sums and sketches, where JSON would hold too much with them."""
    if Path(path).suffix.lower() != ".json":
        return stats
    values = sum(map(written_values, statistics_bundle(stats).arrays.values()))
    return stats.alone() if values > MAX_VALUES else stats


def read_statistics_header(path: str) -> Statistics | None:
    """Read statistics without their moments, for files whose moments may outgrow memory.

    Returns
    -------
    Statistics or None
        Spec, source, scale and bias, with neither moments nor a mean; None where the file holds
        no statistics of normcli.

    Raises
    ------
    InputError
        When the file is missing or malformed.
    """
    bundle = read_bundle(path, lambda names: [n for n in names if n in ("scale", "bias")])
    if bundle.attrs.get("schema") != SCHEMA:
        return None
    about = attributes_from_attrs(bundle.attrs, path)
    parts = {
        name: to_float64(values, f"{path}: {name!r}") for name, values in bundle.arrays.items()
    }
    affine = Affine(parts.get("scale"), parts.get("bias"))
    return Statistics(about.spec, about.source, None, affine=affine, provenance=about.provenance)
