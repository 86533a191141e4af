"""Reference values by Flax on JAX, both in float64 and in the dtype of the input.

Flax computes a variance as E[x²] - E[x]² unless `use_fast_variance` is False, which is what is
compared in float64; the native outputs have its default.
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from formula import cuts, group_moments, moments
from store import Store, draw, draw_affine

jax.config.update("jax_enable_x64", True)


def variables(scale: np.ndarray | None, bias: np.ndarray | None, dtype: str) -> dict[str, Any]:
    """Give the parameters of a layer, as far as it has them."""
    named = {"scale": scale, "bias": bias}
    found = {name: values.astype(dtype) for name, values in named.items() if values is not None}
    return {"params": found} if found else {}


def both(kind: Any, x: np.ndarray, affine: tuple, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Run a layer in float64 with the exact variance, and as it is in the dtype of the input."""
    results = []
    for dtype, fast in (("float64", False), (x.dtype.name, True)):
        more = {} if kind is nn.RMSNorm else {"use_fast_variance": fast}
        layer = kind(dtype=dtype, param_dtype=dtype, **more, **options)
        results.append(np.asarray(layer.apply(variables(*affine, dtype), x.astype(dtype))))
    return results[0], results[1]


def batch(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    sizes: list[int],
    momentum: float,
    dtype: str = "float32",
    affine: bool = True,
) -> None:
    """Add two cases: the batches a layer trains on, and its evaluation afterwards."""
    channel = len(shape) - 1
    x = draw(case, shape, dtype, axis=channel)
    scale, bias = draw_affine(case, shape[-1:], dtype) if affine else (None, None)
    found: dict[str, Any] = {}
    for suffix, used, fast in (("", "float64", False), ("_native", dtype, True)):
        options = {
            "momentum": momentum,
            "dtype": used,
            "param_dtype": used,
            "use_scale": affine,
            "use_bias": affine,
            "use_fast_variance": fast,
        }
        start = np.zeros(shape[-1], used), np.ones(shape[-1], used)
        state = {"mean": start[0], "var": start[1]}
        layer = nn.BatchNorm(use_running_average=False, **options)
        pieces = []
        for cut in cuts(sizes):
            given = {**variables(scale, bias, used), "batch_stats": state}
            piece, after = layer.apply(given, x[cut].astype(used), mutable=["batch_stats"])
            state = after["batch_stats"]
            pieces.append(np.asarray(piece))
        found[f"running_mean{suffix}"] = np.asarray(state["mean"])
        found[f"running_var{suffix}"] = np.asarray(state["var"])
        found[f"trained{suffix}"] = np.concatenate(pieces)
        layer = nn.BatchNorm(use_running_average=True, **options)
        given = {**variables(scale, bias, used), "batch_stats": state}
        found[f"output{suffix}"] = np.asarray(layer.apply(given, x.astype(used)))
    aggregate = list(range(channel))
    fields: dict[str, Any] = {
        "family": "batch_norm",
        "layout": layout,
        "mode": "batch",
        "aggregate": aggregate,
        "scale_axes": [channel] if affine else None,
        "epsilon": 1e-5,
        "momentum": momentum,
        "batch_sizes": sizes,
        "moving_variance": "biased",
    }
    each = [moments(x[cut], aggregate) for cut in cuts(sizes)]
    shared = {"input": x, "scale": scale, "bias": bias}
    trained = {name: found.pop(f"trained{name.removeprefix('output')}") for name in (
        "output",
        "output_native",
    )}  # fmt: skip
    store.add(
        "flax",
        f"{case}_training",
        {
            **shared,
            "mean": np.stack([mean for mean, _ in each]),
            "variance": np.stack([variance for _, variance in each]),
            **trained,
        },
        operator="flax.linen.BatchNorm(use_running_average=False)",
        estimate="input",
        **fields,
    )
    store.add(
        "flax",
        f"{case}_evaluation",
        {**shared, **found},
        operator="flax.linen.BatchNorm(use_running_average=True)",
        estimate="moving",
        **fields,
    )


def observations(
    store: Store, case: str, x: np.ndarray, layout: str, kind: Any, **fields: Any
) -> None:
    """Add a layer that measures each observation; `settings` are what Flax is told."""
    settings = fields.pop("settings")
    axes = fields["scale_axes"]
    affine: tuple = (None, None)
    if axes is not None:
        affine = draw_affine(case, [x.shape[axis] for axis in axes], x.dtype.name)
    if kind is nn.RMSNorm:
        affine = (affine[0], None)
    output, native = both(kind, x, affine, **settings)
    store.add(
        "flax",
        case,
        {
            "input": x,
            "scale": affine[0],
            "bias": affine[1],
            **fields.pop("statistics"),
            "output": output,
            "output_native": native,
        },
        operator=f"flax.linen.{kind.__name__}",
        layout=layout,
        epsilon=1e-6,
        **fields,
    )


def flax(store: Store) -> None:
    """Make the layers of flax.linen."""
    batch(store, "batch_nhwc", (10, 3, 2, 4), "NHWC", [4, 4, 2], 0.99)
    batch(store, "batch_nc_double", (10, 5), "NC", [4, 4, 2], 0.75, "float64")
    batch(store, "batch_ntc_half_plain", (9, 6, 3), "NTC", [4, 4, 1], 0.9, "float16", affine=False)

    for case, shape, layout, axes, dtype in (
        ("layer_last", (4, 5, 6), "NTC", [2], "float32"),
        ("layer_last_half", (5, 16), "NC", [1], "float16"),
        ("layer_three_double", (5, 3, 2, 4), "NHWC", [1, 2, 3], "float64"),
        ("layer_apart", (5, 3, 2, 4), "NHWC", [1, 3], "float32"),
    ):
        x = draw(case, shape, dtype, axis=0)
        mean, variance = moments(x, axes)
        observations(
            store,
            case,
            x,
            layout,
            nn.LayerNorm,
            settings={"reduction_axes": axes, "feature_axes": axes},
            statistics={"mean": mean, "variance": variance},
            family="layer_norm",
            mode="layer",
            aggregate=axes,
            scale_axes=axes,
        )
    for case, shape, layout, dtype in (
        ("instance_nhwc", (4, 3, 5, 6), "NHWC", "float32"),
        ("instance_ntc_double", (4, 7, 3), "NTC", "float64"),
    ):
        x = draw(case, shape, dtype, axis=len(shape) - 1)
        axes = list(range(1, len(shape) - 1))
        mean, variance = moments(x, axes)
        observations(
            store,
            case,
            x,
            layout,
            nn.InstanceNorm,
            settings={},
            statistics={"mean": mean, "variance": variance},
            family="instance_norm",
            mode="instance",
            aggregate=axes,
            scale_axes=[len(shape) - 1],
        )
    for case, shape, layout, groups, dtype in (
        ("group_2", (4, 3, 2, 6), "NHWC", 2, "float32"),
        ("group_3_half", (4, 5, 6), "NTC", 3, "float16"),
        ("group_1_double", (4, 5, 6), "NTC", 1, "float64"),
    ):
        channel = len(shape) - 1
        x = draw(case, shape, dtype, axis=channel)
        mean, variance = group_moments(x, groups, channel)
        observations(
            store,
            case,
            x,
            layout,
            nn.GroupNorm,
            settings={"num_groups": groups},
            statistics={"mean": mean, "variance": variance},
            family="group_norm",
            mode="group",
            aggregate=list(range(1, len(shape))),
            groups=groups,
            group_axis=channel,
            scale_axes=[channel],
        )
    for case, shape, layout, axes, dtype in (
        ("rms_last", (4, 5, 6), "NTC", [2], "float32"),
        ("rms_two_double", (4, 5, 6), "NTC", [1, 2], "float64"),
    ):
        x = draw(case, shape, dtype, axis=0)
        square = (x.astype("float64") ** 2).mean(axis=tuple(axes))
        observations(
            store,
            case,
            x,
            layout,
            nn.RMSNorm,
            settings={"reduction_axes": axes, "feature_axes": axes},
            statistics={"mean_square": square},
            family="rms_norm",
            mode="layer",
            method="rms",
            aggregate=axes,
            scale_axes=axes,
        )
