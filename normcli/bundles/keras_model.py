"""A Keras 3 model whose only layer is one normalization, written by h5py and zipfile alone.

A .keras file is a ZIP archive of the configuration, the weights in HDF5, and a note of the version;
a .weights.h5 is the weights by themselves. BatchNormalization holds the statistics of a dataset;
the other layers measure each observation themselves.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcli.bundles.formats import publish_file
from normcli.bundles.keras_file import CONFIG, METADATA, WEIGHTS, WEIGHTS_SUFFIX
from normcli.bundles.replacing import names_inside, refuse_foreign
from normcli.bundles.selection import split_name
from normcli.domain.affine import Affine
from normcli.domain.channel_norm import ChannelNorm
from normcli.domain.norm_spec import NormSpec
from normcli.errors import DataPolicyError, UsageError

# The layers are configured as the first version of Keras 3 knew them, except for this one.
_SINCE = {"RMSNormalization": "3.9.0"}
# What the variables of one layer are called, and of a note of the version.
_VARIABLES = {"gamma", "beta", "moving_mean", "moving_variance", "scale"}
_LONGEST_NOTE = 10_000
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class KerasLayer:
    """A layer to write.

    Attributes
    ----------
    class_name : str
        ``BatchNormalization`` and so on.
    arrays : mapping of str to ndarray
        Its variables, in the order of ``set_weights``.
    config : mapping
        Arguments of the class.
    shape : tuple of int or None
        Extents of its input; None where any will do.
    """

    class_name: str
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    shape: tuple[int | None, ...]

    @property
    def name(self) -> str:
        """The name that Keras gives such a layer: ``batch_normalization``."""
        return _WORD.sub("_", self.class_name).lower()

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        return f"keras.layers.{self.class_name}({said})"


def batch_layer(spec: NormSpec, norm: ChannelNorm) -> KerasLayer:
    """Return the layer that evaluates with the statistics of a dataset."""
    axis, ndim = spec.kept[0], spec.layout.ndim
    arrays = {
        "gamma": norm.scale,
        "beta": norm.bias,
        "moving_mean": norm.mean,
        "moving_variance": norm.variance,
    }
    config: dict[str, Any] = {"axis": axis if axis < ndim - 1 else -1, "epsilon": norm.epsilon}
    config |= {"scale": norm.scale is not None, "center": norm.bias is not None}
    if norm.momentum is not None:
        config["momentum"] = norm.momentum
    extents = [norm.channels if a == axis else None for a in range(ndim)]
    held = {name: values for name, values in arrays.items() if values is not None}
    return KerasLayer("BatchNormalization", held, config, tuple(extents))


def observation_layer(spec: NormSpec, affine: Affine, shape: tuple[int, ...]) -> KerasLayer:
    """Return the layer that measures each observation itself.

    Raises
    ------
    DataPolicyError
        When no layer computes the same.
    """
    layout = spec.layout
    axes, batch, channel = spec.aggregated, layout.batch_axis, layout.channel_axis
    if spec.ddof or spec.placement != "inside" or spec.method not in ("zscore", "rms"):
        raise _no_layer(spec)
    extents = tuple(n if a in spec.scale_axes else None for a, n in enumerate(shape))
    config: dict[str, Any] = {"axis": list(axes), "epsilon": spec.epsilon}
    terms = {"gamma": affine.scale, "beta": affine.bias}
    held = {name: values for name, values in terms.items() if values is not None}
    same = spec.scale_axes == axes and spec.divided_axis is None and 0 not in axes
    if spec.method == "rms":
        # Its scale is broadcast along the last axes, and cannot be left out.
        if not same or axes != tuple(range(axes[0], layout.ndim)) or affine.bias is not None:
            raise _no_layer(spec)
        scale = np.ones([shape[a] for a in axes]) if affine.scale is None else affine.scale
        return KerasLayer("RMSNormalization", {"scale": scale}, config, extents)
    config |= {"scale": affine.scale is not None, "center": affine.bias is not None}
    if same:
        return KerasLayer("LayerNormalization", held, config, extents)
    # Of the channels of each example, which Keras numbers along axis 0.
    if batch != 0 or channel is None or spec.scale_axes != (channel,):
        raise _no_layer(spec)
    if set(spec.kept) != {batch, channel} or (spec.divided_axis == channel) != bool(spec.groups):
        raise _no_layer(spec)
    config["axis"] = channel if channel < layout.ndim - 1 else -1
    groups = spec.groups or shape[channel]
    return KerasLayer("GroupNormalization", held, {"groups": groups, **config}, extents)


def write_layer(path: str, layer: KerasLayer, dtype: np.dtype, overwrite: bool) -> None:
    """Write a model of one layer to a .keras file, or its weights to a .weights.h5.

    Parameters
    ----------
    path : str
        The file.
    layer : KerasLayer
        What it computes.
    dtype : numpy.dtype
        float32 or float64, of the weights and of what the layer computes.
    overwrite : bool
        Whether an earlier file may be replaced.

    Raises
    ------
    UsageError
        When there are no weights to write, or the file exists.
    DataPolicyError
        When the layer would need Keras' batch axis.
    """
    weights = _weights(layer, dtype)
    if path.lower().endswith(WEIGHTS_SUFFIX):
        if not layer.arrays:
            raise UsageError(
                f"{layer.class_name} without a scale and a bias has no weights to write.",
                "Write a .keras file, which holds the layer itself.",
            )
        refuse_foreign(path, overwrite, "the weights of one layer", _is_layer)
        publish_file(path, weights, overwrite)
        return
    if layer.shape[0] is not None:
        raise DataPolicyError(
            "Axis 0 has parameters of its own, but is the batch axis of every Keras model.",
            "Write the numbers alone, to .npz or .weights.h5.",
        )
    version = _SINCE.get(layer.class_name, "3.0.0")
    parts = {
        METADATA: json.dumps({"keras_version": version}).encode(),
        CONFIG: json.dumps(_config(layer, dtype)).encode(),
        WEIGHTS: weights,
    }
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w") as archive:
        for name, data in parts.items():
            # A date of its own would make the same model other bytes each time.
            archive.writestr(zipfile.ZipInfo(name), data)
    refuse_foreign(path, overwrite, "a model that normcli wrote", _is_ours)
    publish_file(path, image.getvalue(), overwrite)


def _config(layer: KerasLayer, dtype: np.dtype) -> dict[str, Any]:
    shape = list(layer.shape)
    policy = _object("keras", "DTypePolicy", {"name": str(dtype)})
    entry = _object("keras.layers", "InputLayer", {"batch_shape": shape, "dtype": str(dtype)})
    own = _object(
        "keras.layers", layer.class_name, {"name": layer.name, "dtype": policy, **layer.config}
    )
    own["build_config"] = {"input_shape": shape}
    held = {"name": "sequential", "layers": [entry, own], "build_input_shape": shape}
    return _object("keras", "Sequential", held)


def _object(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def _weights(layer: KerasLayer, dtype: np.dtype) -> bytes:
    import h5py

    # In memory: HDF5 crashes at exit after a write to a full disk has failed.
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.create_group("vars").attrs["name"] = "sequential"
        group = file.create_group(f"layers/{layer.name}/vars")
        group.attrs["name"] = layer.name
        for number, values in enumerate(layer.arrays.values()):
            group.create_dataset(str(number), data=values.astype(dtype))
    return image.getvalue()


def _no_layer(spec: NormSpec) -> DataPolicyError:
    axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.aggregated)
    return DataPolicyError(
        f"No Keras layer computes mode {spec.mode}, method {spec.method}, over the axes {axes} of "
        f"{spec.layout} with epsilon {spec.placement} and ddof {spec.ddof}.",
        "LayerNormalization has parameters along the axes it aggregates, GroupNormalization along "
        "C, and RMSNormalization aggregates the last axes.",
    )


def _is_ours(path: str) -> bool:
    """Whether a model is as `write_layer` wrote it; Keras notes when it saves one again."""
    with zipfile.ZipFile(path) as archive:
        if set(archive.namelist()) != {METADATA, CONFIG, WEIGHTS}:
            return False
        with archive.open(METADATA) as file:
            return set(json.loads(file.read(_LONGEST_NOTE))) == {"keras_version"}


def _is_layer(path: str) -> bool:
    names, _ = names_inside(path)
    layers = {split_name(name)[0] for name in names}
    return len(layers) == 1 and {split_name(name)[1] for name in names} <= _VARIABLES
