"""An ONNX model of one normalization: the node of its kind, with its parameters.

BatchNormalization holds the statistics of a dataset; InstanceNormalization, LayerNormalization,
GroupNormalization and RMSNormalization measure each observation themselves. Where the layout does
not have the channels on axis 1, the node stands between two transpositions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcli.bundles.formats import publish_file
from normcli.bundles.replacing import refuse_foreign
from normcli.domain.affine import Affine
from normcli.domain.channel_norm import ChannelNorm
from normcli.domain.norm_spec import NormSpec
from normcli.errors import DataPolicyError, UsageError, missing_package

_PRODUCER = "normcli"
# The opset that has per-channel parameters of GroupNormalization, and the one with RMS.
_OPSET, _RMS_OPSET = 21, 23
# The first version of the file format that each opset came with.
_IR = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
OPSETS = tuple(_IR)


@dataclass(frozen=True)
class Node:
    """A node to write.

    Attributes
    ----------
    operator : str
        ``BatchNormalization`` and so on.
    inputs : mapping of str to ndarray
        Parameters in the order of the operator's inputs.
    attributes : mapping
        Attributes of the operator.
    order : tuple of int
        The axes of the data as the node wants them.
    opset : int
        Version of the operator set.
    """

    operator: str
    inputs: dict[str, np.ndarray]
    attributes: dict[str, Any]
    order: tuple[int, ...]
    opset: int = _OPSET

    def of_opset(self, opset: int | None) -> Node:
        """Return the node in a version of the operators; None takes the default of its operator.

        Raises
        ------
        UsageError
            When that version has no such operator.
        DataPolicyError
            When it has one value for each group, and the channels of a group differ.
        """
        least = _RMS_OPSET if self.operator == "RMSNormalization" else min(OPSETS)
        wanted = opset or max(least, _OPSET)
        if not least <= wanted <= max(OPSETS):
            raise UsageError(
                f"--opset {wanted}: {self.operator} is written for opsets {least} to "
                f"{max(OPSETS)}.",
                "Leave --opset out.",
            )
        if self.operator != "GroupNormalization" or wanted >= _OPSET:
            return replace(self, opset=wanted)
        groups = self.attributes["num_groups"]
        inputs = {}
        for name, values in self.inputs.items():
            rows = values.reshape(groups, -1)
            if np.any(rows != rows[:, :1]):
                raise DataPolicyError(
                    f"The {name} differs within a group of channels, but GroupNormalization "
                    f"before opset {_OPSET} has one value for each of the {groups} groups.",
                    f"Leave --opset out, or give {_OPSET} or later.",
                )
            inputs[name] = rows[:, 0]
        return replace(self, opset=wanted, inputs=inputs)


def batch_node(spec: NormSpec, norm: ChannelNorm) -> Node:
    """Return the node that evaluates with the statistics of a dataset."""
    order = list(range(spec.layout.ndim))
    channel = spec.kept[0]
    order[1], order[channel] = order[channel], order[1]
    ones, zeros = np.ones_like(norm.mean), np.zeros_like(norm.mean)
    inputs = {
        "scale": ones if norm.scale is None else norm.scale,
        "bias": zeros if norm.bias is None else norm.bias,
        "mean": norm.mean,
        "variance": norm.variance,
    }
    attributes = {"epsilon": norm.epsilon}
    if norm.momentum is not None:
        attributes["momentum"] = norm.momentum
    return Node("BatchNormalization", inputs, attributes, tuple(order))


def observation_node(spec: NormSpec, affine: Affine, shape: tuple[int, ...]) -> Node:
    """Return the node that measures each observation itself.

    Raises
    ------
    DataPolicyError
        When no node computes the same.
    """
    layout = spec.layout
    batch, channel = layout.batch_axis, layout.channel_axis
    axes = range(layout.ndim)
    if spec.ddof or spec.placement != "inside" or spec.method not in ("zscore", "rms"):
        raise _no_node(spec)
    attributes: dict[str, Any] = {"epsilon": spec.epsilon}
    extents = tuple(shape[axis] for axis in spec.scale_axes)
    ones, zeros = np.ones(extents), np.zeros(extents)
    inputs = {
        "scale": ones if affine.scale is None else affine.scale,
        "bias": zeros if affine.bias is None else affine.bias,
    }
    trailing = spec.aggregated == tuple(axes)[-len(spec.aggregated) :]
    if trailing and spec.scale_axes == spec.aggregated and spec.divided_axis is None:
        attributes["axis"] = spec.aggregated[0] - layout.ndim
        if spec.method == "zscore":
            return Node("LayerNormalization", inputs, attributes, tuple(axes))
        if affine.bias is None:
            return Node("RMSNormalization", {"scale": inputs["scale"]}, attributes, tuple(axes))
    if spec.method == "rms" or batch is None or channel is None or spec.scale_axes != (channel,):
        raise _no_node(spec)
    order = (batch, channel, *(axis for axis in axes if axis not in (batch, channel)))
    if spec.kept == tuple(sorted((batch, channel))) and spec.divided_axis is None:
        return Node("InstanceNormalization", inputs, attributes, order)
    if spec.divided_axis == channel and spec.groups and set(spec.kept) == {batch, channel}:
        attributes["num_groups"] = spec.groups
        return Node("GroupNormalization", inputs, attributes, order)
    raise _no_node(spec)


def write_model(path: str, node: Node, dtype: np.dtype, spec: NormSpec, overwrite: bool) -> None:
    """Write a model with one normalization; its input is ``x``, its output ``y``.

    Parameters
    ----------
    path : str
        The file.
    node : Node
        What it computes.
    dtype : numpy.dtype
        float32 or float64, of input, parameters and output.
    spec : NormSpec
        Names the axes of the input.
    overwrite : bool
        Whether an earlier file may be replaced.

    Raises
    ------
    InputError
        When onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise missing_package(path, "onnx", "onnx") from error
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    attributes = dict(node.attributes)
    by_group = node.operator == "GroupNormalization" and node.opset < _OPSET
    if node.operator == "GroupNormalization" and not by_group:
        # The others are float32 by specification, whatever the type of their input.
        attributes["stash_type"] = kind
    ndim = spec.layout.ndim
    nodes, name = [], "x"

    def add(operator: str, result: str, *more: str, **about: Any) -> None:
        nonlocal name
        inner = "normalization" if operator == node.operator else f"{operator.lower()}_{result}"
        nodes.append(helper.make_node(operator, [name, *more], [result], name=inner, **about))
        name = result

    tensors = [numpy_helper.from_array(v.astype(dtype), n) for n, v in node.inputs.items()]
    plain = node.order == tuple(range(ndim))
    if not plain:
        add("Transpose", "channels_first", perm=list(node.order))
    add(node.operator, "y" if plain else "normalized", *node.inputs, **attributes)
    if not plain:
        add("Transpose", "y", perm=[int(i) for i in np.argsort(node.order)])
    extents = [_extent(spec, axis, node) for axis in range(ndim)]
    graph = helper.make_graph(
        nodes,
        "normcli",
        [helper.make_tensor_value_info("x", kind, extents)],
        [helper.make_tensor_value_info("y", kind, extents)],
        tensors,
    )
    model = helper.make_model(
        graph,
        producer_name=_PRODUCER,
        opset_imports=[helper.make_opsetid("", node.opset)],
        ir_version=_IR[node.opset],
    )
    if not by_group:
        # The checker refuses operators that a later opset replaced, even in a model of theirs.
        onnx.checker.check_model(model, full_check=True)
    refuse_foreign(path, overwrite, "a model that normcli wrote", _is_ours)
    publish_file(path, model.SerializeToString(deterministic=True), overwrite)


def _extent(spec: NormSpec, axis: int, node: Node) -> int | str:
    """Return the extent of an axis that the parameters fix, or a name for a free one."""
    axes = spec.kept if node.operator == "BatchNormalization" else spec.scale_axes
    if axis in axes and not (node.operator == "GroupNormalization" and node.opset < _OPSET):
        return int(node.inputs["scale"].shape[axes.index(axis)])
    return f"{spec.layout.axis_label(axis)}_{axis}"


def _no_node(spec: NormSpec) -> DataPolicyError:
    axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.aggregated)
    return DataPolicyError(
        f"No ONNX node computes mode {spec.mode}, method {spec.method}, over the axes {axes} of "
        f"{spec.layout} with epsilon {spec.placement} and ddof {spec.ddof}.",
        "LayerNormalization aggregates the last axes, InstanceNormalization and "
        "GroupNormalization all but N and C.",
    )


def _is_ours(path: str) -> bool:
    """Whether a model names normcli as its producer, the second field of what `write_model` writes.

    The first is the version of the format, a number below 128.
    """
    with open(path, "rb") as file:
        head = file.read(4 + len(_PRODUCER))
    return head[:1] == b"\x08" and head[2:] == bytes((0x12, len(_PRODUCER))) + _PRODUCER.encode()
