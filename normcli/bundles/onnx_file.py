"""ONNX models: scale, bias, mean and variance of the normalization nodes, read and never run.

A node's arrays are named ``LAYER.scale``, ``LAYER.bias``, ``LAYER.mean``, ``LAYER.variance``, with
``LAYER.epsilon`` and ``LAYER.momentum``, and ``LAYER.parameter_groups`` where scale and bias have
one value for each group of channels (GroupNormalization before opset 21). LAYER is what its
parameters' names have in common, as PyTorch exports them (``layers.3.norm``), else the name of the
node.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything, split_name
from normcli.errors import InputError, SafetyError, missing_package

# Inputs after the data, by operator.
ROLES = {
    "BatchNormalization": ("scale", "bias", "mean", "variance"),
    "InstanceNormalization": ("scale", "bias"),
    "LayerNormalization": ("scale", "bias"),
    "GroupNormalization": ("scale", "bias"),
    "RMSNormalization": ("scale",),
}
# From this opset on GroupNormalization has a scale and a bias for each channel.
_PER_CHANNEL = 21
_EPSILON = 1e-5
_MOMENTUM = 0.9


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen parameters of the normalization nodes of a model.

    Attributes are ``layers``: for each layer its operator and the operator's attributes.

    Raises
    ------
    InputError
        When the model is malformed or has no normalization nodes, or onnx is not installed.
    SafetyError
        When parameters lie outside of the model's folder.
    """
    size = require_file(path)
    try:
        import onnx
    except ImportError as error:
        raise missing_package(path, "onnx", "onnx") from error
    with reading(path, "an ONNX model"):
        model = onnx.load_model(path, load_external_data=False)
        # protobuf reads some other files as a model without any contents.
        if not model.ir_version or not model.graph.node:
            raise InputError(f"{path} is not an ONNX model: it has no nodes.")
        stored = _stored(model.graph)
        opset = _opset(model)
        arrays: dict[str, Any] = {}
        layers: dict[str, Any] = {}
        for number, node in enumerate(model.graph.node):
            roles = ROLES.get(node.op_type)
            if roles is None or node.domain not in ("", "ai.onnx"):
                continue
            layer = _layer(node, stored, layers, number)
            about = _attributes(node)
            layers[layer] = {"operator": node.op_type, **about}
            for role, name in zip(roles, list(node.input)[1:], strict=False):
                if name in stored:
                    arrays[f"{layer}.{role}"] = stored[name]
            for name in ("epsilon", "momentum"):
                if name in about:
                    arrays[f"{layer}.{name}"] = np.array(about[name])
            if node.op_type == "GroupNormalization" and opset < _PER_CHANNEL:
                arrays[f"{layer}.parameter_groups"] = np.array(about.get("num_groups", 1))
        if not layers:
            raise InputError(
                f"{path} has no normalization nodes.", f"They are called {', '.join(ROLES)}."
            )
        allowance = Allowance(path, size)
        found = {}
        for name in choose(tuple(arrays)):
            value = arrays[name]
            if not isinstance(value, np.ndarray):
                value = _array(value, path, name, allowance)
            found[name] = value
        return Bundle(found, {"layers": layers})


def _opset(model: Any) -> int:
    """Return the version of the operators that a model is written in."""
    own = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(own[0]) if own else 1


def _stored(graph: Any) -> dict[str, Any]:
    """Return the tensors that the model itself holds: initializers and constants.

    PyTorch's exporter stores equal tensors once, and hands them on by Identity.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
        elif node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    return tensors


def _layer(node: Any, stored: Mapping[str, Any], taken: Mapping[str, Any], number: int) -> str:
    parents = {split_name(name)[0] for name in list(node.input)[1:] if name in stored}
    common = parents.pop() if len(parents) == 1 else ""
    for name in (common, node.name, f"{node.op_type}_{number}"):
        if name and name not in taken:
            return name
    return f"node_{number}"


def _attributes(node: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"epsilon": float(np.float32(_EPSILON))}
    if node.op_type == "BatchNormalization":
        about["momentum"] = float(np.float32(_MOMENTUM))
    for attribute in node.attribute:
        if attribute.type == attribute.FLOAT:
            about[attribute.name] = float(attribute.f)
        elif attribute.type == attribute.INT:
            about[attribute.name] = int(attribute.i)
    return about


def _array(tensor: Any, path: str, name: str, allowance: Allowance) -> np.ndarray:
    import onnx
    from onnx import numpy_helper

    where = f"{path}: {name!r}"
    types = onnx.TensorProto
    if tensor.data_type == types.STRING or tensor.data_type == types.UNDEFINED:
        raise InputError(f"{where} holds no numbers.")
    extents = [int(n) for n in tensor.dims]
    if any(extent < 0 for extent in extents):
        raise InputError(f"{where} has the shape {extents}.")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    nbytes = int(np.prod(extents, dtype=object)) * dtype.itemsize
    allowance.take(name, nbytes)
    if tensor.data_location == types.EXTERNAL:
        data = _external(tensor, path, where, nbytes)
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(extents)
    with np.errstate(invalid="ignore"):  # Numbers that are not finite are refused later.
        return np.array(numpy_helper.to_array(tensor), copy=True)


def _external(tensor: Any, path: str, where: str, nbytes: int) -> bytes:
    """Return the bytes of a tensor from the file beside the model that it names."""
    about = {entry.key: entry.value for entry in tensor.external_data}
    location = about.get("location", "")
    parts = Path(location).parts
    if not parts or Path(location).is_absolute() or ".." in parts or "\\" in location:
        raise SafetyError(
            f"{where} lies in {location[:100]!r}; external data are read from the model's own "
            "folder only."
        )
    place = Path(path).parent
    for part in parts:
        place = place / part
        try:
            status = os.lstat(place)
        except OSError as error:
            raise InputError(f"{where} lies in {location!r}, which does not exist.") from error
        if stat.S_ISLNK(status.st_mode):
            raise SafetyError(f"{where} lies behind the symbolic link {str(place)!r}.")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where} lies in {location!r}, which is not a regular file.")
    if os.path.samestat(status, os.stat(path)):
        raise SafetyError(f"{where} lies in the model itself, whose bytes would be its numbers.")
    start = int(about.get("offset") or 0)
    length = int(about.get("length") or nbytes)
    if start < 0 or length != nbytes or start + length > status.st_size:
        raise InputError(
            f"{where} needs {nbytes:,} bytes from byte {start:,} on, but names {length:,} of the "
            f"{status.st_size:,} bytes in {location!r}."
        )
    with place.open("rb") as file:
        file.seek(start)
        return file.read(length)
