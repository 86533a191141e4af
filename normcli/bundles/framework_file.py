"""Numbers of a channel-wise normalization under the names of other programs.

torch: weight, bias, running_mean, running_var, num_batches_tracked. Keras: gamma, beta,
moving_mean, moving_variance. scikit-learn: the attributes of StandardScaler, as JSON. torchvision:
mean and std of Normalize, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles import torch_file
from normcli.bundles.array_checks import require_finite
from normcli.bundles.attributes import parse_json
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import publish_file, write_bundle
from normcli.bundles.guards import reading, require_file
from normcli.bundles.json_values import array_from_numbers
from normcli.bundles.replacing import holds_layer, refuse_foreign
from normcli.domain.affine import Affine
from normcli.domain.channel_norm import ChannelNorm
from normcli.errors import DataPolicyError, InputError, UsageError

# State dicts, which hold tensors alone.
TORCH_SUFFIXES = (".pt", ".pth")
TORCH_NAMES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_SCALER_NAMES = {"mean_", "var_", "scale_", "n_features_in_", "n_samples_seen_"}
_SCALER_NAMES |= {"with_mean", "with_std", "copy"}
_MAX_JSON = 256 * 2**20


def write_torch(
    path: str, norm: ChannelNorm, momentum: float | None, dtype: np.dtype, overwrite: bool
) -> None:
    """Write the state of ``torch.nn.BatchNorm*d``.

    Parameters
    ----------
    path : str
        The file; .npz and .safetensors hold the tensors alone, as ``load_state_dict`` wants them.
    norm : ChannelNorm
        The numbers.
    momentum : float or None
        Weight of the NEW value, for the attributes.
    dtype : numpy.dtype
        Of the tensors.
    overwrite : bool
        Whether an earlier file may be replaced.
    """
    arrays: dict[str, np.ndarray] = {}
    if norm.scale is not None or norm.bias is not None:
        # The layer has both or none of them.
        arrays["weight"] = np.ones_like(norm.mean) if norm.scale is None else norm.scale
        arrays["bias"] = np.zeros_like(norm.mean) if norm.bias is None else norm.bias
    arrays["running_mean"], arrays["running_var"] = norm.mean, norm.variance
    tensors = {name: values.astype(dtype) for name, values in arrays.items()}
    tensors["num_batches_tracked"] = np.array(norm.batches, np.int64)
    about = {"epsilon": norm.epsilon, "momentum": momentum, "variance_divisor": norm.divisor}
    _write(path, tensors, about, overwrite)


def write_keras(
    path: str,
    weights: Mapping[str, np.ndarray],
    norm: ChannelNorm,
    dtype: np.dtype,
    overwrite: bool,
) -> None:
    """Write the weights of ``keras.layers.BatchNormalization`` in the order of ``set_weights``."""
    held = {name: values.astype(dtype) for name, values in weights.items()}
    about = {
        "epsilon": norm.epsilon,
        "momentum": norm.momentum,
        "variance_divisor": norm.divisor,
    }
    _write(path, held, about, overwrite)


def write_affine_names(
    path: str, affine: Affine, names: tuple[str, str], epsilon: float, dtype: np.dtype, over: bool
) -> None:
    """Write scale and bias under a framework's names, for layers without statistics.

    Raises
    ------
    UsageError
        When there is neither.
    DataPolicyError
        When a number leaves the range of `dtype`.
    """
    pairs = zip(names, (affine.scale, affine.bias), strict=True)
    with np.errstate(over="ignore", under="ignore"):
        held = {name: values.astype(dtype) for name, values in pairs if values is not None}
    for name, values in held.items():
        if not np.all(np.isfinite(values)):
            raise DataPolicyError(
                f"The {name} leaves the range of {dtype}.", "--dtype float64 keeps it."
            )
    if not held:
        raise UsageError(
            "These statistics belong to each observation, and have no scale and no bias: there "
            "is nothing to write.",
            "Convert to ONNX, whose node computes them.",
        )
    _write(path, held, {"epsilon": epsilon}, over)


def write_scaler(path: str, norm: ChannelNorm, overwrite: bool) -> None:
    """Write the attributes of a fitted ``sklearn.preprocessing.StandardScaler`` as JSON."""
    shift, divisor = norm.folded("StandardScaler")
    plain = norm.scale is None and norm.bias is None
    document: dict[str, Any] = {
        "mean_": shift.tolist(),
        "var_": (norm.variance if plain else divisor * divisor).tolist(),
        "scale_": divisor.tolist(),
        "n_features_in_": norm.channels,
        "with_mean": True,
        "with_std": True,
        "copy": True,
    }
    if norm.count is not None:
        counts = norm.count.reshape(-1)
        same = bool(np.all(counts == counts[0]))
        document["n_samples_seen_"] = int(counts[0]) if same else counts.tolist()
    refuse_foreign(path, overwrite, "the attributes of a StandardScaler", _is_scaler)
    publish_file(path, (json.dumps(document, indent=1) + "\n").encode(), overwrite)


def write_normalize(path: str, norm: ChannelNorm, overwrite: bool) -> None:
    """Write mean and std of ``torchvision.transforms.Normalize`` as JSON."""
    shift, divisor = norm.folded("Normalize")
    document = {"mean": shift.tolist(), "std": divisor.tolist()}
    refuse_foreign(path, overwrite, "mean and std of a Normalize", _is_normalize)
    publish_file(path, (json.dumps(document) + "\n").encode(), overwrite)


def read_document(path: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    InputError
        When it is malformed.
    """
    size = require_file(path)
    if size > _MAX_JSON:
        raise InputError(f"{path} has {size:,} bytes; JSON is read up to {_MAX_JSON:,}.")
    with reading(path, "a JSON file"):
        document = parse_json(Path(path).read_text("utf-8-sig"))
    if not isinstance(document, dict):
        raise InputError(f"{path} is no JSON object.")
    return document


def read_divisors(path: str, mean: str, divisor: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and divisor, under these keys, of a JSON file.

    Raises
    ------
    InputError
        When one is missing, no list of finite numbers, or a divisor is 0.
    """
    document = read_document(path)
    found = []
    for key in (mean, divisor):
        if key not in document:
            raise InputError(f"{path} has no {key!r}.", f"It has {', '.join(document) or 'none'}.")
        values = array_from_numbers(document[key], f"{path}: {key!r}").astype(np.float64)
        require_finite(values, f"{path}: {key!r}")
        found.append(values.reshape(-1))
    if found[0].shape != found[1].shape or found[0].size == 0:
        raise InputError(
            f"{path}: {mean!r} has shape {found[0].shape}, but {divisor!r} has {found[1].shape}."
        )
    if np.any(found[1] == 0):
        raise InputError(f"{path}: {divisor!r} holds a 0, which nothing is divided by.")
    return found[0], found[1]


def _write(
    path: str, arrays: dict[str, np.ndarray], about: dict[str, Any], overwrite: bool
) -> None:
    refuse_foreign(path, overwrite, "one layer", holds_layer)
    suffix = Path(path).suffix.lower()
    if suffix in TORCH_SUFFIXES and not arrays.keys() - TORCH_NAMES:
        publish_file(path, torch_file.state_dict(path, arrays), overwrite)
        return
    held = suffix not in (".npz", ".npy")
    known = {key: value for key, value in about.items() if value not in (None, "unknown")}
    attrs = known if held else {}
    write_bundle(path, Bundle(arrays, attrs), overwrite)


def _is_scaler(path: str) -> bool:
    return {"mean_", "scale_"} <= read_document(path).keys() <= _SCALER_NAMES


def _is_normalize(path: str) -> bool:
    return read_document(path).keys() == {"mean", "std"}
