"""One normalization layer out of a checkpoint: its numbers, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcli.bundles.array_checks import require_not_negative_variance, to_float64
from normcli.bundles.formats import read_bundle
from normcli.bundles.parameter_file import (
    BIAS_NAMES,
    GROUPS_NAME,
    MEAN_NAMES,
    SCALE_NAMES,
    VARIANCE_NAMES,
    checked_parameter,
    names_by_role,
)
from normcli.bundles.selection import listed, split_name
from normcli.errors import InputError

_EPSILON, _MOMENTUM, _BATCHES = ("epsilon", "eps"), ("momentum",), ("num_batches_tracked",)


@dataclass(frozen=True)
class Layer:
    """What a file holds of one layer; what it does not hold is None.

    Attributes
    ----------
    scale, bias, mean, variance : ndarray of float64 or None
        The parameters.
    epsilon, momentum : float or None
        As the file states them, in the sense of the framework that wrote it.
    batches : int or None
        PyTorch's num_batches_tracked.
    groups : int or None
        Groups of channels that scale and bias have one value each for (ONNX before opset 21).
    dtype : numpy.dtype
        Type of the stored numbers.
    attrs : mapping
        Attributes of the file.
    """

    scale: np.ndarray | None
    bias: np.ndarray | None
    mean: np.ndarray | None
    variance: np.ndarray | None
    epsilon: float | None
    momentum: float | None
    batches: int | None
    groups: int | None
    dtype: np.dtype
    attrs: Mapping[str, Any]


def read_layer(path: str) -> Layer:
    """Read the layer that a path names; without ``#prefix`` the only one with statistics.

    Raises
    ------
    InputError
        When there is no layer, or several.
    DataPolicyError
        When a variance is negative.
    """
    roles: dict[str, str] = {}
    numbers: dict[str, str] = {}

    def choose(names: tuple[str, ...]) -> list[str]:
        roles.update(names_by_role(names, {"mean": MEAN_NAMES, "variance": VARIANCE_NAMES}, path))
        parents = {split_name(name)[0] for name in roles.values()}
        near = [n for n in names if not parents or split_name(n)[0] in parents]
        affine = {"scale": SCALE_NAMES, "bias": BIAS_NAMES}
        roles.update(names_by_role(tuple(near), affine, path))
        if not roles:
            raise InputError(
                f"{path} holds no normalization layer; it holds {listed(names)}.",
                f"Names: {', '.join((*MEAN_NAMES, *VARIANCE_NAMES, *SCALE_NAMES, *BIAS_NAMES))}.",
            )
        parent = split_name(next(iter(roles.values())))[0]
        for key, words in (
            ("epsilon", _EPSILON),
            ("momentum", _MOMENTUM),
            ("batches", _BATCHES),
            ("groups", (GROUPS_NAME,)),
        ):
            near = [n for n in names if split_name(n)[0] == parent]
            found = [n for n in near if split_name(n)[1].lower() in words]
            if found:
                numbers[key] = found[0]
        return [*roles.values(), *numbers.values()]

    bundle = read_bundle(path, choose)
    parts = {
        role: checked_parameter(bundle.arrays[name], path, name) for role, name in roles.items()
    }
    if ("mean" in parts) != ("variance" in parts):
        lone = "mean" if "mean" in parts else "variance"
        raise InputError(f"{path} holds a {lone} only: statistics are a mean and a variance.")
    if "variance" in parts:
        require_not_negative_variance(parts["variance"], f"The variance in {path}")
    stated = {
        key: _number(bundle.arrays[name], key, f"{path}: {name!r}") for key, name in numbers.items()
    }
    for key, words in (("epsilon", _EPSILON), ("momentum", _MOMENTUM)):
        for word in words:
            if type(bundle.attrs.get(word)) in (int, float):
                value = np.array(bundle.attrs[word])
                stated.setdefault(key, _number(value, key, f"{path}: {word!r}"))
    batches = int(stated["batches"]) if "batches" in stated else None
    dtype = bundle.arrays[next(iter(roles.values()))].dtype
    return Layer(
        scale=parts.get("scale"),
        bias=parts.get("bias"),
        mean=parts.get("mean"),
        variance=parts.get("variance"),
        epsilon=stated.get("epsilon"),
        momentum=stated.get("momentum"),
        batches=batches,
        groups=int(stated["groups"]) if "groups" in stated else None,
        dtype=dtype,
        attrs=bundle.attrs,
    )


def _number(values: np.ndarray, key: str, where: str) -> float:
    """Return a number that a layer states of itself."""
    numbers = to_float64(values, where)
    most = 1.0 if key == "momentum" else np.inf
    if numbers.size != 1 or not 0 <= float(numbers.reshape(())) <= most or np.isinf(numbers).any():
        words = "a number from 0 to 1" if key == "momentum" else "one finite number, 0 or more"
        raise InputError(f"{where} must be {words}, but is {numbers.reshape(-1)[:4].tolist()}.")
    return float(numbers.reshape(()))
