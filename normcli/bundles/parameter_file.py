"""Scale, bias, mean and variance from files that people and frameworks write."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.array_checks import (
    require_finite,
    require_not_negative_variance,
    to_float64,
)
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import draft_bundle, read_bundle, split_path, write_bundle
from normcli.bundles.replacing import holds_array, holds_marked, refuse_foreign
from normcli.bundles.selection import listed, split_name
from normcli.domain.affine import Affine
from normcli.errors import InputError, UsageError
from normcli.publishing import Draft

SCALE_NAMES = ("scale", "weight", "gamma", "scaling")
BIAS_NAMES = ("bias", "beta", "offset", "biases")
MEAN_NAMES = ("running_mean", "moving_mean", "mean", "trainedmean")
VARIANCE_NAMES = ("running_var", "moving_variance", "variance", "var", "trainedvariance")
_NORMALIZING = re.compile(r"norm|bn|ln_|_ln", re.I)
AFFINE_SCHEMA = "normcli-affine"
# Beside parameters that have one value for each group of channels: how many groups.
GROUPS_NAME = "parameter_groups"
_Roles = Mapping[str, tuple[str, ...]]


def read_affine(path: str) -> Affine:
    """Read scale and bias from named arrays; at least one of them must be there.

    Raises
    ------
    InputError
        When neither is there, several layers qualify, or a value is no finite real number.
    """
    roles: _Roles = {"scale": SCALE_NAMES, "bias": BIAS_NAMES}
    chosen: dict[str, str] = {}

    def choose(names: tuple[str, ...]) -> list[str]:
        if names == ("",):
            raise InputError(
                f"{path} holds one array without a name: a scale or a bias?",
                "Say which: --scale FILE or --bias FILE.",
            )
        chosen.update(names_by_role(names, roles, path))
        if not chosen:
            raise InputError(
                f"{path} holds neither a scale nor a bias; it holds {listed(names)}.",
                f"Names: {', '.join(SCALE_NAMES)}; {', '.join(BIAS_NAMES)}.",
            )
        return [*chosen.values(), *_beside(names, next(iter(chosen.values())))]

    arrays = read_bundle(path, choose).arrays
    found = {role: checked_parameter(arrays[name], path, name) for role, name in chosen.items()}
    return Affine(found.get("scale"), found.get("bias"), _groups(arrays, path))


def read_term(path: str, name: str) -> Affine:
    """Read one of scale and bias, with the groups of channels that it may be of.

    Parameters
    ----------
    path : str
        The file.
    name : {"scale", "bias"}
        Which one.

    Raises
    ------
    InputError
        When there is none, several qualify, or a value is no finite real number.
    """
    values, groups = _read_one(path, name, SCALE_NAMES if name == "scale" else BIAS_NAMES)
    return Affine(values if name == "scale" else None, values if name == "bias" else None, groups)


def read_scale(path: str) -> np.ndarray:
    """Read a scale: the only array of a file, or the one with a scale's name.

    Raises
    ------
    InputError
        When there is none, several qualify, or a value is no finite real number.
    """
    return _read_one(path, "scale", SCALE_NAMES)[0]


def read_bias(path: str) -> np.ndarray:
    """Read a bias: the only array of a file, or the one with a bias's name.

    Raises
    ------
    InputError
        When there is none, several qualify, or a value is no finite real number.
    """
    return _read_one(path, "bias", BIAS_NAMES)[0]


def read_mean(path: str) -> np.ndarray:
    """Read the mean of a file, or its only array, as float64.

    Raises
    ------
    InputError
        When there is none, several qualify, or a value is no finite real number.
    """
    return _read_one(path, "mean", MEAN_NAMES)[0]


def read_variance(path: str) -> np.ndarray:
    """Read the variance of a file, or its only array, as float64.

    Raises
    ------
    InputError
        When there is none, several qualify, or a value is no finite real number.
    DataPolicyError
        When a variance is negative.
    """
    variance, _ = _read_one(path, "variance", VARIANCE_NAMES)
    require_not_negative_variance(variance, f"The variance in {path}")
    return variance


def read_epsilon(path: str) -> float | None:
    """Return the epsilon that a model states for its layer, or None where none is stated.

    Raises
    ------
    InputError
        When the file is missing or malformed.
    """
    bundle = read_bundle(path, lambda names: [n for n in names if split_name(n)[1] == "epsilon"])
    values = [values for values in bundle.arrays.values() if values.ndim == 0]
    return float(values[0]) if len(values) == 1 else None


def write_affine(
    path: str, affine: Affine, overwrite: bool = False, attrs: Mapping[str, Any] | None = None
) -> None:
    """Write scale and bias, as far as they exist, to a file in the format of its suffix.

    Parameters
    ----------
    path : str
        The file.
    affine : Affine
        Scale and bias; an absent one is left out.
    overwrite : bool
        Whether an earlier file may be replaced.
    attrs : mapping, optional
        Further attributes, such as how they were learned; an .npy file takes none.

    Raises
    ------
    UsageError
        When both are absent, or the format cannot hold them.
    """
    refuse_other_than_affine(path, overwrite, _shape(affine))
    write_bundle(path, _affine_bundle(path, affine, attrs), overwrite)


def draft_affine(
    path: str,
    affine: Affine,
    overwrite: bool = False,
    attrs: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Draft:
    """Write scale and bias as a complete draft, which the caller publishes or discards.

    Parameters
    ----------
    path, affine, overwrite, attrs
        As of `write_affine`.
    folder : Path, optional
        Where to write the draft; beside `path` without it.

    Raises
    ------
    UsageError, OutputError
        As `write_affine`.
    """
    refuse_other_than_affine(path, overwrite, _shape(affine))
    return draft_bundle(path, _affine_bundle(path, affine, attrs), overwrite, folder)


def refuse_other_than_affine(
    path: str, overwrite: bool, shape: tuple[int, ...] | None = None
) -> None:
    """Raise UsageError when a file exists that a scale and a bias must not replace.

    Parameters
    ----------
    path : str
        The file.
    overwrite : bool
        Whether an earlier file may be replaced.
    shape : tuple of int, optional
        Extents of what is to be written, which an earlier .npy file must have too; such a file
        passes where they are not known yet.
    """

    def is_own(name: str) -> bool:
        if Path(name).suffix.lower() == ".npy":
            return shape is None or holds_array(name, (), shape)
        return holds_marked(name, AFFINE_SCHEMA, ("scale", "bias", GROUPS_NAME))

    refuse_foreign(path, overwrite, "a scale and a bias", is_own)


def _shape(affine: Affine) -> tuple[int, ...] | None:
    part = affine.bias if affine.scale is None else affine.scale
    return None if part is None else part.shape


def _affine_bundle(path: str, affine: Affine, attrs: Mapping[str, Any] | None) -> Bundle:
    parts = {"scale": affine.scale, "bias": affine.bias}
    arrays = {name: values for name, values in parts.items() if values is not None}
    if not arrays:
        raise UsageError(f"There is neither a scale nor a bias to write to {path}.")
    if affine.groups is not None:
        arrays[GROUPS_NAME] = np.array(affine.groups)
    about = {"schema": AFFINE_SCHEMA, "schema_version": 1, **(attrs or {})}
    if Path(os.fspath(path)).suffix.lower() == ".npy":
        about = dict(attrs or {})
    return Bundle(arrays, about)


def _read_one(path: str, role: str, aliases: tuple[str, ...]) -> tuple[np.ndarray, int | None]:
    chosen: list[str] = []

    def choose(names: tuple[str, ...]) -> list[str]:
        found = {role: names[0]} if len(names) == 1 else names_by_role(names, {role: aliases}, path)
        if not found:
            raise InputError(
                f"{path} holds no {role}; it holds {listed(names)}.",
                f"Name the array {' or '.join(aliases)}, or pick one: {_part(path, 'NAME')}",
            )
        chosen.append(found[role])
        return [*chosen, *_beside(names, chosen[0])]

    arrays = read_bundle(path, choose).arrays
    return checked_parameter(arrays[chosen[0]], path, chosen[0]), _groups(arrays, path)


def _beside(names: tuple[str, ...], chosen: str) -> list[str]:
    """Return the name of the array that tells of groups, in the layer of the chosen one."""
    layer = split_name(chosen)[0]
    return [name for name in names if split_name(name) == (layer, GROUPS_NAME)]


def _groups(arrays: Mapping[str, np.ndarray], path: str) -> int | None:
    for name, values in arrays.items():
        if split_name(name)[1] == GROUPS_NAME:
            if values.shape != () or values.dtype.kind not in "iu" or int(values) < 1:
                raise InputError(f"{path}: {name!r} must be one integer, 1 or more.")
            return int(values)
    return None


def names_by_role(names: tuple[str, ...], roles: _Roles, path: str) -> dict[str, str]:
    """Return the name of the array of each role that is there, all from one layer.

    Raises
    ------
    InputError
        When several layers, or several arrays of one layer, qualify.
    """
    every = {alias for aliases in roles.values() for alias in aliases}
    layers = {split_name(name)[0] for name in names if _leaf(name).lower() in every}
    if not layers:
        return {}
    # Names without a layer belong to the file itself, and win over those of its layers.
    layer = "" if "" in layers else min(layers)
    if len(layers) > 1 and layer:
        # Every layer of a network has a weight and a bias; those that say so normalize, by their
        # name or by the statistics that they keep.
        keeping = {split_name(name)[0] for name in names if _leaf(name).lower() in VARIANCE_NAMES}
        likely = [name for name in layers if _NORMALIZING.search(name) or name in keeping]
        raise InputError(
            f"{path} holds {len(layers)} layers with such parameters: "
            f"{listed(layers, first=likely)}.",
            f"Pick one: {_part(path, min(likely or layers))}",
        )
    own = [name for name in names if split_name(name)[0] == layer]
    found = {}
    for role, aliases in roles.items():
        matching = [name for name in own if _leaf(name) in aliases] or [
            name for name in own if _leaf(name).lower() in aliases
        ]
        if len(matching) > 1:
            raise InputError(
                f"{path} holds several arrays that could be the {role}: {listed(matching)}.",
                f"Pick one: {_part(path, matching[0])}",
            )
        if matching:
            found[role] = matching[0]
    return found


def _part(path: str, name: str) -> str:
    """Return the path that names one array or layer below what `path` names."""
    file, prefix = split_path(path)
    separator = "/" if Path(file).suffix.lower() in (".h5", ".hdf5", ".zarr", ".keras") else "."
    return f"{file}#{prefix}{separator if prefix else ''}{name}"


def _leaf(name: str) -> str:
    # Keras 2 writes gamma:0.
    return split_name(name)[1].removesuffix(":0")


def checked_parameter(values: np.ndarray, path: str, name: str) -> np.ndarray:
    """Return a parameter as float64.

    Raises
    ------
    InputError
        When it is empty, or a value is no finite real number.
    """
    where = f"{path}: {name!r}" if name else path
    numbers = to_float64(values, where)
    if numbers.size == 0:
        raise InputError(f"{where} is empty (shape {numbers.shape}).")
    require_finite(numbers, where)
    return numbers
