"""Reference values by onnx's reference evaluator, which is the specification in NumPy.

A model stores its attributes in float32, even where its tensors are float64: an epsilon of 1e-5 is
9.99999975e-06 and a momentum of 0.9 is 0.899999976. The cases say these very numbers.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from formula import DEFAULTS, Arrays, cuts, expected, group_moments, moments
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from store import Store, draw, draw_affine, rng_of

EPSILON = float(np.float32(1e-5))


def call(operator: str, opset: int, feeds: Arrays, outputs: int, **attributes: Any) -> list:
    """Run one operator in a model of its own."""
    kind = helper.np_dtype_to_tensor_dtype(feeds["X"].dtype)
    names = [f"Y{k}" for k in range(outputs)]
    node = helper.make_node(operator, list(feeds), names, **attributes)
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info(n, kind, list(v.shape)) for n, v in feeds.items()],
        [helper.make_tensor_value_info(n, kind, None) for n in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(None, feeds))


def both(
    operator: str, opset: int, feeds: Arrays, outputs: int = 1, **attributes: Any
) -> tuple[list, list]:
    """Run an operator in float64 and in the dtype of its input."""
    wide = {k: v.astype("float64") for k, v in feeds.items()}
    own = call(operator, opset, feeds, outputs, **attributes)
    if operator == "GroupNormalization" and opset >= 21:
        attributes["stash_type"] = TensorProto.DOUBLE  # it would round to float32 otherwise
    return call(operator, opset, wide, outputs, **attributes), own


def batch_given(store: Store, case: str, shape: tuple[int, ...], layout: str, dtype: str) -> None:
    """Add batch normalization by given statistics, as in inference."""
    x = draw(case, shape, dtype)
    scale, bias = draw_affine(case, shape[1:2], dtype)
    rng = rng_of(case + " statistics")
    mean = rng.normal(0, 3, shape[1]).astype("float16").astype(dtype)
    variance = rng.uniform(0.1, 6, shape[1]).astype("float16").astype(dtype)
    feeds = {"X": x, "scale": scale, "B": bias, "mean": mean, "var": variance}
    (output,), (native,) = both("BatchNormalization", 15, feeds)
    store.add(
        "onnx",
        case,
        {
            "input": x,
            "scale": scale,
            "bias": bias,
            "running_mean": mean,
            "running_var": variance,
            "output": output,
            "output_native": native,
        },
        family="batch_norm",
        operator="BatchNormalization-15(training_mode=0)",
        convention="onnx",
        layout=layout,
        mode="batch",
        epsilon=EPSILON,
        estimate="moving",
        aggregate=[k for k in range(len(shape)) if k != 1],
        scale_axes=[1],
    )


def batch_trained(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    sizes: list[int],
    momentum: float,
    start: bool,
) -> None:
    """Add batches in training mode, where each gets the moving statistics of the one before."""
    x = draw(case, shape)
    scale, bias = draw_affine(case, shape[1:2], "float32")
    channels = shape[1]
    first = np.zeros(channels, "float32"), np.ones(channels, "float32")
    if start:
        rng = rng_of(case + " start")
        first = (
            rng.normal(0, 3, channels).astype("float16").astype("float32"),
            rng.uniform(0.1, 6, channels).astype("float16").astype("float32"),
        )
    aggregate = [k for k in range(len(shape)) if k != 1]
    results: dict[str, np.ndarray] = {}
    for suffix, used in (("", "float64"), ("_native", "float32")):
        mean, variance = (value.astype(used) for value in first)
        pieces = []
        for cut in cuts(sizes):
            feeds = {"X": x[cut], "scale": scale, "B": bias, "mean": mean, "var": variance}
            feeds = {name: value.astype(used) for name, value in feeds.items()}
            piece, mean, variance = call(
                "BatchNormalization", 15, feeds, 3, momentum=momentum, training_mode=1
            )
            pieces.append(piece)
        results[f"running_mean{suffix}"] = mean
        results[f"running_var{suffix}"] = variance
        results[f"output{suffix}"] = np.concatenate(pieces)
    each = [moments(x[cut], aggregate) for cut in cuts(sizes)]
    store.add(
        "onnx",
        case,
        {
            "input": x,
            "scale": scale,
            "bias": bias,
            "start_mean": first[0] if start else None,
            "start_var": first[1] if start else None,
            "mean": np.stack([mean for mean, _ in each]),
            "variance": np.stack([variance for _, variance in each]),
            **results,
        },
        family="batch_norm",
        operator="BatchNormalization-15(training_mode=1)",
        convention="onnx",
        layout=layout,
        mode="batch",
        epsilon=EPSILON,
        aggregate=aggregate,
        scale_axes=[1],
        momentum=float(np.float32(momentum)),
        batch_sizes=sizes,
        moving_variance="biased",
    )


def put(
    store: Store,
    case: str,
    layout: str,
    feeds: Arrays,
    made: tuple[list, list],
    statistics: dict,
    **fields: Any,
) -> None:
    """Add a case of an operator without moving statistics."""
    output, native = made
    arrays = {"input": feeds["X"], "scale": feeds.get("scale"), "bias": feeds.get("B")}
    arrays |= {"output": output[0], "output_native": native[0], **statistics}
    store.add("onnx", case, arrays, convention="onnx", layout=layout, epsilon=EPSILON, **fields)


def affine(case: str, x: np.ndarray, shape: Iterable[int], bias: bool = True) -> Arrays:
    """Give the inputs of an operator with scale and perhaps bias."""
    scale, shift = draw_affine(case, shape, x.dtype.name)
    return {"X": x, "scale": scale} | ({"B": shift} if bias else {})


def onnx(store: Store) -> None:
    """Make the operators of the present opsets."""
    batch_given(store, "batch_given_nchw", (5, 4, 3, 2), "NCHW", "float32")
    batch_given(store, "batch_given_nc", (9, 4), "NC", "float64")
    batch_given(store, "batch_given_nct_half", (5, 3, 4), "NCT", "float16")

    batch_trained(store, "batch_trained_nchw", (10, 3, 2, 2), "NCHW", [4, 4, 2], 0.9, start=False)
    batch_trained(store, "batch_trained_start", (10, 3), "NC", [4, 4, 2], 0.75, start=True)

    shape: tuple[int, ...]
    for case, shape, layout, dtype in (
        ("instance_nchw", (5, 4, 3, 2), "NCHW", "float32"),
        ("instance_nct", (4, 3, 8), "NCT", "float64"),
        ("instance_nct_half", (4, 3, 8), "NCT", "float16"),
    ):
        x = draw(case, shape, dtype)
        aggregate = list(range(2, len(shape)))
        feeds = affine(case, x, shape[1:2])
        mean, variance = moments(x, aggregate)
        put(
            store,
            case,
            layout,
            feeds,
            both("InstanceNormalization", 6, feeds),
            {"mean": mean, "variance": variance},
            family="instance_norm",
            operator="InstanceNormalization-6",
            mode="instance",
            aggregate=aggregate,
            scale_axes=[1],
        )

    for case, shape, layout, axis, dtype, bias in (
        ("layer_last", (4, 5, 6), "NTC", -1, "float32", True),
        ("layer_three", (5, 3, 2, 4), "NCHW", 1, "float32", True),
        ("layer_two_scale", (5, 4, 6), "NTC", -2, "float64", False),
        ("layer_last_half", (5, 16), "NC", -1, "float16", True),
    ):
        x = draw(case, shape, dtype, axis=0)
        aggregate = list(range(axis % len(shape), len(shape)))
        feeds = affine(case, x, [shape[k] for k in aggregate], bias)
        made = both("LayerNormalization", 17, feeds, 3, axis=axis)
        _, variance = moments(x, aggregate)
        inner = tuple(aggregate)
        put(
            store,
            case,
            layout,
            feeds,
            made,
            {
                "mean": made[0][1].squeeze(inner),
                "invstd": made[0][2].squeeze(inner),
                "variance": variance,
            },
            family="layer_norm",
            operator=f"LayerNormalization-17(axis={axis})",
            mode="layer",
            aggregate=aggregate,
            scale_axes=aggregate,
        )

    for case, shape, layout, groups, opset, dtype in (
        ("group_2_nchw", (4, 6, 3, 2), "NCHW", 2, 21, "float32"),
        ("group_3_nct", (4, 6, 5), "NCT", 3, 21, "float32"),
        ("group_2_by_groups", (4, 6, 3, 2), "NCHW", 2, 18, "float32"),
        ("group_3_by_groups", (4, 6, 5), "NCT", 3, 18, "float64"),
        ("group_3_half", (4, 6, 5), "NCT", 3, 21, "float16"),
    ):
        x = draw(case, shape, dtype)
        by_group = opset < 21
        feeds = affine(case, x, [groups] if by_group else shape[1:2])
        mean, variance = group_moments(x, groups, 1)
        made = both("GroupNormalization", opset, feeds, num_groups=groups)
        if by_group:  # a case says the parameters of channels
            each = {k: np.repeat(v, shape[1] // groups) for k, v in feeds.items() if k != "X"}
            feeds |= each
        put(
            store,
            case,
            layout,
            feeds,
            made,
            {"mean": mean, "variance": variance},
            family="group_norm",
            operator=f"GroupNormalization-{opset}",
            mode="group",
            aggregate=list(range(1, len(shape))),
            groups=groups,
            group_axis=1,
            scale_axes=[1],
            extra="the operator has one scale and bias a group" if by_group else None,
        )

    for case, shape, layout, axis in (
        ("rms_last", (4, 5, 6), "NTC", -1),
        ("rms_two", (5, 4, 6), "NTC", 1),
    ):
        x = draw(case, shape, axis=0)
        aggregate = list(range(axis % len(shape), len(shape)))
        feeds = affine(case, x, [shape[k] for k in aggregate], bias=False)
        square = (x.astype("float64") ** 2).mean(axis=tuple(aggregate))
        put(
            store,
            case,
            layout,
            feeds,
            both("RMSNormalization", 23, feeds, axis=axis),
            {"mean_square": square},
            family="rms_norm",
            operator=f"RMSNormalization-23(axis={axis})",
            mode="layer",
            method="rms",
            aggregate=aggregate,
            scale_axes=aggregate,
        )

    x = draw("mean_variance", (5, 4, 3, 2))
    feeds = {"X": x}
    mean, variance = moments(x, [0, 2, 3])
    # A function with a float32 constant inside: it cannot run in float64, so a formula does.
    fields = {
        "family": "mean_variance",
        "operator": "MeanVarianceNormalization-13",
        "convention": "onnx",
        "layout": "NCHW",
        "mode": "batch",
        "aggregate": [0, 2, 3],
        "epsilon": float(np.float32(1e-9)),
        "epsilon_placement": "outside",
        "estimate": "pooled",
        "output_by": "formula",
        "extra": "epsilon is added to the deviation",
    }
    output = expected(DEFAULTS | fields, {"input": x}).astype("float64")
    (native,) = call("MeanVarianceNormalization", 13, feeds, 1)
    store.add(
        "onnx",
        "mean_variance",
        {"input": x, "mean": mean, "variance": variance, "output": output, "output_native": native},
        **fields,
    )
