"""Reference values by Keras 3 on torch.

These layers compute in float32 whatever they get, so ``output`` is made by the plain formula and
``output_native`` is what Keras gives.
"""

import os
import warnings
from typing import Any

import numpy as np
import torch
from formula import DEFAULTS, cuts, expected, fold, group_moments, moments
from store import Store, draw, draw_affine

os.environ["KERAS_BACKEND"] = "torch"  # read when keras is imported
from keras import layers


def numbers(tensor: Any) -> np.ndarray:
    """Give the values of a tensor."""
    return tensor.detach().numpy()


def put(store: Store, case: str, arrays: dict[str, Any], **fields: Any) -> None:
    """Add a case whose float64 output comes from ``expected``."""
    fields = {"convention": "keras", "output_by": "formula", **fields}
    row = DEFAULTS | fields
    named = {k: v for k, v in arrays.items() if v is not None}
    output = expected(row, named).astype("float64")
    store.add("keras", case, {**arrays, "output": output}, **fields)


def batch(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    sizes: list[int],
    affine: bool = True,
    **options: Any,
) -> None:
    """Add two cases: the batches a layer trains on, and its evaluation afterwards."""
    channel = len(shape) - 1
    x = draw(case, shape, axis=channel)
    scale, bias = draw_affine(case, shape[-1:], "float32") if affine else (None, None)
    built = layers.BatchNormalization(center=affine, scale=affine, **options)
    built.build((None, *shape[1:]))
    if affine:
        built.gamma.assign(scale)
        built.beta.assign(bias)
    with torch.no_grad():
        training = [numbers(built(x[cut], training=True)) for cut in cuts(sizes)]
        evaluation = numbers(built(x, training=False))
    aggregate = list(range(channel))
    fields: dict[str, Any] = {
        "family": "batch_norm",
        "layout": layout,
        "mode": "batch",
        "aggregate": aggregate,
        "scale_axes": [channel] if affine else None,
        "epsilon": built.epsilon,
        "momentum": built.momentum,
        "batch_sizes": sizes,
        "moving_variance": "biased",
    }
    each = [moments(x[cut], aggregate) for cut in cuts(sizes)]
    mean, variance = fold(each, [1] * len(each), fields | {"convention": "keras"})
    shared = {"input": x, "scale": scale, "bias": bias}
    batches = {
        "mean": np.stack([mean for mean, _ in each]),
        "variance": np.stack([variance for _, variance in each]),
        "output_native": np.concatenate(training),
    }
    running = {
        "running_mean": mean,
        "running_var": variance,
        "running_mean_native": numbers(built.moving_mean.value),
        "running_var_native": numbers(built.moving_variance.value),
        "output_native": evaluation,
    }
    name = "keras.layers.BatchNormalization"
    put(
        store,
        f"{case}_training",
        shared | batches,
        operator=f"{name}(training=True)",
        estimate="input",
        **fields,
    )
    put(
        store,
        f"{case}_evaluation",
        shared | running,
        operator=f"{name}(training=False)",
        estimate="moving",
        **fields,
    )


def layer(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    axis: int | list[int],
    dtype: str = "float32",
    **options: Any,
) -> None:
    """Add layer normalization over the listed axes."""
    x = draw(case, shape, dtype, axis=0)
    axes = [axis] if isinstance(axis, int) else axis
    aggregate = sorted(k % len(shape) for k in axes)
    built = layers.LayerNormalization(axis=axis, dtype=dtype, **options)
    built.build(shape)
    arrays: dict[str, Any] = {"input": x}
    scale, bias = draw_affine(case, [shape[k] for k in aggregate], dtype)
    if built.gamma is not None:
        arrays["scale"] = scale
        built.gamma.assign(scale)
    if built.beta is not None:
        arrays["bias"] = bias
        built.beta.assign(bias)
    mean, variance = moments(x, aggregate)
    arrays |= {"mean": mean, "variance": variance}
    rms_scaling = options.get("rms_scaling", False)
    put(
        store,
        case,
        {**arrays, "output_native": numbers(built(x))},
        family="layer_norm",
        operator="keras.layers.LayerNormalization",
        layout=layout,
        mode="layer",
        method="std" if rms_scaling else "zscore",
        aggregate=aggregate,
        scale_axes=aggregate if "scale" in arrays or "bias" in arrays else None,
        epsilon=built.epsilon,
        extra="rms_scaling: divides by the deviation, subtracts nothing" * rms_scaling or None,
    )


def group(
    store: Store, case: str, shape: tuple[int, ...], layout: str, groups: int, axis: int
) -> None:
    """Add group normalization."""
    x = draw(case, shape, axis=axis)
    scale, bias = draw_affine(case, shape[axis : axis + 1], "float32")
    stated = -1 if axis == len(shape) - 1 else axis
    built = layers.GroupNormalization(groups, axis=stated)
    built.build(shape)
    built.gamma.assign(scale)
    built.beta.assign(bias)
    found = built.groups  # -1 became the number of channels
    mean, variance = group_moments(x, found, axis)
    put(
        store,
        case,
        {
            "input": x,
            "scale": scale,
            "bias": bias,
            "mean": mean,
            "variance": variance,
            "output_native": numbers(built(x)),
        },
        family="group_norm",
        operator="keras.layers.GroupNormalization",
        layout=layout,
        mode="group",
        aggregate=list(range(1, len(shape))),
        groups=found,
        group_axis=axis,
        scale_axes=[axis],
        epsilon=built.epsilon,
    )


def rms(
    store: Store, case: str, shape: tuple[int, ...], layout: str, axis: int | list[int]
) -> None:
    """Add RMS normalization over the listed axes."""
    x = draw(case, shape, axis=0)
    axes = [axis] if isinstance(axis, int) else axis
    aggregate = sorted(k % len(shape) for k in axes)
    built = layers.RMSNormalization(axis=axis)
    built.build(shape)
    scale, _ = draw_affine(case, [shape[k] for k in aggregate], "float32")
    built.scale.assign(scale)
    square = (x.astype("float64") ** 2).mean(axis=tuple(aggregate))
    put(
        store,
        case,
        {"input": x, "scale": scale, "mean_square": square, "output_native": numbers(built(x))},
        family="rms_norm",
        operator="keras.layers.RMSNormalization",
        layout=layout,
        mode="layer",
        method="rms",
        aggregate=aggregate,
        scale_axes=aggregate,
        epsilon=built.epsilon,
    )


def keras(store: Store) -> None:
    """Make Keras layers; they compute in float32 whatever they get, so ``output`` is a formula."""
    batch(store, "batch_nhwc", (10, 2, 2, 3), "NHWC", [4, 4, 2])
    batch(store, "batch_nc", (10, 4), "NC", [4, 4, 2])
    batch(store, "batch_ntc_m06_plain", (10, 5, 3), "NTC", [3, 5, 2], affine=False, momentum=0.6)
    batch(store, "batch_nc_many", (60, 2), "NC", [8] * 7 + [4], momentum=0.9, epsilon=1e-5)

    layer(store, "layer_last", (4, 5, 6), "NTC", -1)
    layer(store, "layer_last_half", (5, 16), "NC", -1, "float16")
    layer(store, "layer_three", (5, 3, 2, 4), "NHWC", [1, 2, 3])
    layer(store, "layer_three_unsorted", (5, 3, 2, 4), "NHWC", [3, 1, 2])
    layer(store, "layer_apart", (5, 3, 2, 4), "NHWC", [1, 3])
    layer(store, "layer_only_scale", (4, 5, 6), "NTC", -1, center=False)
    layer(store, "layer_only_bias", (4, 5, 6), "NTC", -1, scale=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer(store, "layer_rms_scaling", (4, 5, 6), "NTC", -1, rms_scaling=True)

    group(store, "group_1", (5, 3, 2, 4), "NHWC", 1, 3)
    group(store, "group_2", (5, 3, 2, 4), "NHWC", 2, 3)
    group(store, "group_each", (5, 3, 2, 4), "NHWC", -1, 3)
    group(store, "group_3_first", (5, 6, 4), "NCT", 3, 1)

    rms(store, "rms_last", (4, 5, 6), "NTC", -1)
    rms(store, "rms_two", (4, 5, 6), "NTC", [-2, -1])

    x = draw("adapted", (20, 4), axis=1)
    x[:, 2] = 7.0
    built = layers.Normalization(axis=-1)
    built.adapt(x)
    mean, variance = moments(x, [0])
    put(
        store,
        "adapted",
        {"input": x, "mean": mean, "variance": variance, "output_native": numbers(built(x))},
        family="normalization",
        operator="keras.layers.Normalization(axis=-1).adapt",
        layout="NC",
        mode="batch",
        aggregate=[0],
        epsilon=1e-7,
        epsilon_placement="floor",
        estimate="pooled",
        extra="divides by max(deviation, epsilon)",
    )
