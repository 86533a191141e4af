"""The file of what was learned: whether it can be written, writing it, and reading it back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normcli.api.learning_setup import LearnSetup
from normcli.api.learning_terms import LearnRule
from normcli.api.preparing import provenance
from normcli.api.sidecars import JSON_VALUES
from normcli.arrays.opening import refuse_same
from normcli.bundles.formats import FORMATS
from normcli.bundles.parameter_file import (
    draft_affine,
    read_affine,
    read_bias,
    read_scale,
    refuse_other_than_affine,
)
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.domain.affine import Affine
from normcli.engine.report import Report
from normcli.errors import UsageError
from normcli.publishing import Draft, refuse_unwritable

# Suffixes of files for parameters that inputs may have too.
ARRAYS_TOO = (".npy", ".npz", ".h5", ".hdf5", ".zarr")


def check_name(path: str, rule: LearnRule, inputs: Sequence[str], cells: int = 0) -> None:
    """Refuse a name under which scale and bias could not be written.

    Parameters
    ----------
    path : str
        The name.
    rule : LearnRule
        Which terms are written.
    inputs : sequence of str
        Names of the arrays that are read.
    cells : int
        Values of each term, where that is known.

    Raises
    ------
    UsageError
        For a suffix that cannot hold them, and for the name of an input.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"{path} has no suffix of a file for scale and bias.",
            f"Use one of {', '.join(FORMATS)}.",
        )
    if suffix in ARRAYS_TOO:
        refuse_same(path, inputs)
    if suffix == ".npy" and rule.scale.present and rule.bias.present:
        raise UsageError(
            f"{path} holds one array, but scale and bias are two.",
            "Use .npz, .json, .h5, .zarr or .safetensors, or drop one with --bias none.",
        )
    if suffix == ".json" and 2 * cells > JSON_VALUES:
        raise UsageError(
            f"{path} would hold {2 * cells} values, more than the {JSON_VALUES} that .json is "
            "good for.",
            "Write .npz, .h5 or .zarr.",
        )


def check_place(path: str, overwrite: bool, shape: tuple[int, ...] | None = None) -> None:
    """Refuse a place that cannot be written to, or holds what must not be replaced.

    Parameters
    ----------
    path : str
        The name.
    overwrite : bool
        Whether an earlier file may be replaced.
    shape : tuple of int, optional
        Extents of scale and bias, where they are known; an .npy file has to have them.

    Raises
    ------
    UsageError
        When a file is there, unless it may be replaced and holds learned parameters.
    OutputError
        When the folder is missing or cannot be written to.
    """
    refuse_unwritable(Path(path), overwrite)
    refuse_other_than_affine(path, overwrite, shape)


def draft_learned(
    path: str,
    affine: Affine,
    setup: LearnSetup,
    report: Report,
    overwrite: bool,
    folder: Path,
) -> Draft:
    """Write what was learned, and how, as a complete draft in `folder`."""
    attrs: dict[str, Any] = {}
    if Path(path).suffix.lower() != ".npy":
        assert report.learned is not None
        told = {k: v for k, v in report.learned.items() if k != "losses"}
        losses = report.learned["losses"]
        normalization = statistics_attrs(setup.spec, setup.described)
        attrs = {
            "learning": {
                **setup.record(),
                **told,
                "loss_at_start": losses[0],
                "loss": losses[-1],
                "statistics": report.stats,
                "target": list(setup.target_described.inputs),
            },
            "normalization": {name: normalization[name] for name in ("spec", "source")},
            "provenance": provenance(),
        }
    return draft_affine(path, affine, overwrite, attrs, folder)


def read_learned(path: str, rule: LearnRule) -> Affine:
    """Return what an earlier run with the same settings has written."""
    if Path(path).suffix.lower() != ".npy":
        return read_affine(path)
    if rule.scale.present:
        return Affine(read_scale(path), None)
    return Affine(None, read_bias(path))
