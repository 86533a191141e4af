"""Reference values by torch: batch, instance, layer, group and RMS normalization."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from formula import Arrays, cuts, group_moments, moments
from store import Store, draw, draw_affine, rng_of
from torch.nn.functional import batch_norm, group_norm, instance_norm, layer_norm, rms_norm

torch.set_num_threads(1)  # the last bits depend on the number of threads
Maybe = torch.Tensor | None


def in_both(run: Callable[..., Any], arrays: Arrays) -> tuple[Any, Any]:
    """Run a torch function on the arrays in float64 and in their own dtype."""
    own = {"x" if k == "input" else k: torch.from_numpy(v) for k, v in arrays.items()}
    wide = {k: v.double() for k, v in own.items()}
    return run(**wide).numpy(), run(**own).numpy()


def batch_given(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    dtype: str,
    affine: bool,
    epsilon: float = 1e-5,
) -> None:
    """Add batch normalization by given statistics, as in evaluation."""
    x = draw(case, shape, dtype)
    arrays = {"input": x}
    if affine:
        arrays["scale"], arrays["bias"] = draw_affine(case, shape[1:2], dtype)
    rng = rng_of(case + " statistics")
    arrays["running_mean"] = rng.normal(0, 3, shape[1]).astype("float16").astype(dtype)
    arrays["running_var"] = rng.uniform(0.1, 6, shape[1]).astype("float16").astype(dtype)

    def run(
        x: torch.Tensor,
        running_mean: torch.Tensor,
        running_var: torch.Tensor,
        scale: Maybe = None,
        bias: Maybe = None,
    ) -> torch.Tensor:
        return batch_norm(x, running_mean, running_var, scale, bias, eps=epsilon)

    output, native = in_both(run, arrays)
    store.add(
        "torch_batch",
        case,
        {**arrays, "output": output, "output_native": native},
        family="batch_norm",
        operator="torch.nn.functional.batch_norm(training=False)",
        convention="torch",
        layout=layout,
        mode="batch",
        estimate="moving",
        epsilon=epsilon,
        aggregate=[k for k in range(len(shape)) if k != 1],
        scale_axes=[1] if affine else None,
    )


def batch_trained(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    sizes: list[int],
    momentum: float | None,
    dtype: str = "float32",
    affine: bool = True,
) -> None:
    """Add two cases: the batches a module trains on, and its evaluation afterwards."""
    x = draw(case, shape, dtype)
    aggregate = [k for k in range(len(shape)) if k != 1]
    affines = dict(zip(("scale", "bias"), draw_affine(case, shape[1:2], dtype), strict=True))
    module = "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d"
    results = {}
    for suffix, used in (("", "float64"), ("_native", dtype)):
        layer = getattr(torch.nn, module)(
            shape[1], momentum=momentum, affine=affine, dtype=getattr(torch, used)
        )
        if affine:
            layer.weight.data = torch.from_numpy(affines["scale"].astype(used))
            layer.bias.data = torch.from_numpy(affines["bias"].astype(used))
        rows = torch.from_numpy(x.astype(used))
        with torch.no_grad():
            training = torch.cat([layer.train()(rows[cut]) for cut in cuts(sizes)])
            evaluation = layer.eval()(rows)
        results[f"training{suffix}"] = training.numpy()
        results[f"evaluation{suffix}"] = evaluation.numpy()
        results[f"running_mean{suffix}"] = layer.running_mean.numpy()
        results[f"running_var{suffix}"] = layer.running_var.numpy()
    each = [moments(x[cut], aggregate) for cut in cuts(sizes)]
    running = {k: v for k, v in results.items() if k.startswith("running")}
    for phase in ("training", "evaluation"):
        arrays = {"input": x} | (affines if affine else {})
        if phase == "training":
            arrays["mean"] = np.stack([mean for mean, _ in each])
            arrays["variance"] = np.stack([variance for _, variance in each])
        else:
            arrays |= running
        arrays["output"] = results[phase]
        arrays["output_native"] = results[f"{phase}_native"]
        store.add(
            "torch_batch",
            f"{case}_{phase}",
            arrays,
            family="batch_norm",
            operator=f"torch.nn.{module}({phase})",
            convention="torch",
            layout=layout,
            mode="batch",
            aggregate=aggregate,
            scale_axes=[1] if affine else None,
            epsilon=1e-5,
            momentum="cumulative" if momentum is None else momentum,
            batch_sizes=sizes,
            moving_variance="unbiased",
            estimate="input" if phase == "training" else "moving",
        )


def torch_batch(store: Store) -> None:
    """Make batch_norm by given statistics, and BatchNorm modules trained over uneven batches."""
    batch_given(store, "given_nchw_affine", (6, 4, 5, 3), "NCHW", "float32", True)
    batch_given(store, "given_nchw_plain", (5, 4, 3, 2), "NCHW", "float32", False)
    batch_given(store, "given_nc_affine", (12, 5), "NC", "float64", True)
    batch_given(store, "given_nct_affine", (5, 3, 7), "NCT", "float16", True)
    batch_given(store, "given_ncdhw_affine", (2, 3, 4, 3, 2), "NCDHW", "float32", True)
    batch_given(store, "given_nchw_epsilon", (4, 3, 5, 2), "NCHW", "float32", True, epsilon=0.5)

    batch_trained(store, "nc_m01", (10, 4), "NC", [4, 4, 2], 0.1)
    batch_trained(store, "nc_m03", (10, 4), "NC", [4, 4, 2], 0.3, "float64")
    batch_trained(store, "nc_cumulative", (10, 3), "NC", [4, 4, 2], None, "float64")
    batch_trained(store, "nc_many", (60, 2), "NC", [8] * 7 + [4], 0.1)
    batch_trained(store, "nct_m03_plain", (10, 3, 5), "NCT", [4, 4, 2], 0.3, affine=False)
    batch_trained(store, "nchw_m01", (10, 4, 3, 2), "NCHW", [4, 4, 2], 0.1)
    batch_trained(store, "nchw_cumulative_uneven", (10, 3, 2, 2), "NCHW", [3, 1, 6], None)
    batch_trained(store, "nchw_last_single", (9, 3, 2, 2), "NCHW", [4, 4, 1], 0.1)


def instance(
    store: Store, case: str, shape: tuple[int, ...], layout: str, dtype: str, affine: bool
) -> None:
    """Add instance normalization."""
    x = draw(case, shape, dtype)
    arrays = {"input": x}
    if affine:
        arrays["scale"], arrays["bias"] = draw_affine(case, shape[1:2], dtype)
    aggregate = list(range(2, len(shape)))
    mean, variance = moments(x, aggregate)

    output, native = in_both(
        lambda x, scale=None, bias=None: instance_norm(x, weight=scale, bias=bias), arrays
    )
    results = {"output": output, "output_native": native, "mean": mean, "variance": variance}
    store.add(
        "torch_instance",
        case,
        {**arrays, **results},
        family="instance_norm",
        operator="torch.nn.functional.instance_norm",
        convention="torch",
        layout=layout,
        mode="instance",
        aggregate=aggregate,
        scale_axes=[1] if affine else None,
        epsilon=1e-5,
    )


def torch_instance(store: Store) -> None:
    """Make instance_norm with and without affine, and once with running statistics."""
    instance(store, "nchw_affine", (6, 4, 5, 3), "NCHW", "float32", True)
    instance(store, "nchw_plain", (5, 4, 3, 2), "NCHW", "float32", False)
    instance(store, "nct_affine", (5, 3, 8), "NCT", "float64", True)
    instance(store, "nct_plain", (5, 3, 8), "NCT", "float16", False)
    instance(store, "ncdhw_affine", (2, 3, 4, 3, 2), "NCDHW", "float32", True)

    case, sizes = "nchw_running", [4, 4, 2]
    x = draw(case, (10, 2, 3, 2))
    results = {}
    for suffix, used in (("", "float64"), ("_native", "float32")):
        layer = torch.nn.InstanceNorm2d(2, track_running_stats=True, dtype=getattr(torch, used))
        rows = torch.from_numpy(x.astype(used))
        with torch.no_grad():
            for cut in cuts(sizes):
                layer.train()(rows[cut])
            results[f"output{suffix}"] = layer.eval()(rows).numpy()
        results |= {f"{k}{suffix}": v.numpy() for k, v in layer.named_buffers() if "running" in k}
    store.add(
        "torch_instance",
        case,
        {"input": x, **results},
        family="instance_norm",
        operator="torch.nn.InstanceNorm2d(track_running_stats=True)",
        convention="torch",
        layout="NCHW",
        mode="instance",
        aggregate=[2, 3],
        epsilon=1e-5,
        momentum=0.1,
        batch_sizes=sizes,
        moving_variance="unbiased",
        estimate="moving",
        extra="running statistics of instances: a channel's mean over the batch, only in torch",
    )


def layer(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    trailing: int,
    dtype: str,
    affine: bool = True,
) -> None:
    """Add layer normalization over the last axes."""
    x = draw(case, shape, dtype, axis=0)
    arrays = {"input": x}
    inner = shape[-trailing:]
    if affine:
        arrays["scale"], arrays["bias"] = draw_affine(case, inner, dtype)
    aggregate = list(range(len(shape) - trailing, len(shape)))
    mean, variance = moments(x, aggregate)

    output, native = in_both(
        lambda x, scale=None, bias=None: layer_norm(x, inner, scale, bias), arrays
    )
    results = {"output": output, "output_native": native, "mean": mean, "variance": variance}
    store.add(
        "torch_layer",
        case,
        {**arrays, **results},
        family="layer_norm",
        operator="torch.nn.functional.layer_norm",
        convention="torch",
        layout=layout,
        mode="layer",
        aggregate=aggregate,
        scale_axes=aggregate if affine else None,
        epsilon=1e-5,
    )


def torch_layer(store: Store) -> None:
    """Make layer_norm over one, two and three trailing axes."""
    layer(store, "one_axis", (4, 5, 6), "NTC", 1, "float32")
    layer(store, "one_axis_plain", (4, 5, 6), "NTC", 1, "float32", affine=False)
    layer(store, "one_axis_nc", (9, 7), "NC", 1, "float64")
    layer(store, "one_axis_half", (5, 16), "NC", 1, "float16")
    layer(store, "two_axes", (3, 2, 5, 4), "NCHW", 2, "float32")
    layer(store, "two_axes_double", (4, 5, 6), "NTC", 2, "float64")
    layer(store, "three_axes", (6, 4, 5, 3), "NCHW", 3, "float32")
    layer(store, "three_axes_plain", (5, 4, 3, 2), "NHWC", 3, "float16", affine=False)


def group(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    groups: int,
    dtype: str,
    affine: bool = True,
) -> None:
    """Add group normalization."""
    x = draw(case, shape, dtype)
    arrays = {"input": x}
    if affine:
        arrays["scale"], arrays["bias"] = draw_affine(case, shape[1:2], dtype)
    mean, variance = group_moments(x, groups, 1)

    output, native = in_both(
        lambda x, scale=None, bias=None: group_norm(x, groups, scale, bias), arrays
    )
    results = {"output": output, "output_native": native, "mean": mean, "variance": variance}
    store.add(
        "torch_group",
        case,
        {**arrays, **results},
        family="group_norm",
        operator="torch.nn.functional.group_norm",
        convention="torch",
        layout=layout,
        mode="group",
        aggregate=list(range(1, len(shape))),
        groups=groups,
        group_axis=1,
        scale_axes=[1] if affine else None,
        epsilon=1e-5,
    )


def torch_group(store: Store) -> None:
    """Make group_norm with one group, two groups and as many groups as channels."""
    group(store, "groups_1", (4, 6, 3, 2), "NCHW", 1, "float32")
    group(store, "groups_2", (4, 6, 3, 2), "NCHW", 2, "float32")
    group(store, "groups_3_plain", (4, 6, 3, 2), "NCHW", 3, "float32", affine=False)
    group(store, "groups_c", (4, 6, 3, 2), "NCHW", 6, "float32")
    group(store, "groups_2_nct", (4, 8, 5), "NCT", 2, "float64")
    group(store, "groups_2_nc", (7, 8), "NC", 2, "float32")
    group(store, "groups_2_half", (3, 4, 5, 2), "NCHW", 2, "float16")


def rms(
    store: Store,
    case: str,
    shape: tuple[int, ...],
    layout: str,
    trailing: int,
    dtype: str,
    eps: float | None,
    affine: bool = True,
    small: float = 1,
) -> None:
    """Add RMS normalization over the last axes."""
    x = (draw(case, shape, "float64", axis=0) * small).astype(dtype)
    arrays = {"input": x}
    inner = shape[-trailing:]
    if affine:
        arrays["scale"] = draw_affine(case, inner, dtype)[0]
    aggregate = list(range(len(shape) - trailing, len(shape)))
    # float16 is computed in float32 and takes its epsilon: 1.19e-7, not 9.8e-4.
    of_dtype = float(np.finfo("float64" if dtype == "float64" else "float32").eps)
    epsilon = of_dtype if eps is None else eps

    def run(x: torch.Tensor, scale: Maybe = None) -> torch.Tensor:
        # In float64, None would be another number: the wide run states the one that counts.
        own = x.dtype == getattr(torch, dtype)
        return rms_norm(x, inner, scale, eps if own else epsilon)

    output, native = in_both(run, arrays)
    square = (x.astype("float64") ** 2).mean(axis=tuple(aggregate))
    results = {"output": output, "output_native": native, "mean_square": square}
    store.add(
        "torch_rms",
        case,
        {**arrays, **results},
        family="rms_norm",
        operator="torch.nn.functional.rms_norm",
        convention="torch",
        layout=layout,
        mode="layer",
        method="rms",
        aggregate=aggregate,
        scale_axes=aggregate if affine else None,
        epsilon=epsilon,
        epsilon_stated="None" if eps is None else None,
    )


def torch_rms(store: Store) -> None:
    """Make rms_norm, whose eps=None is the machine epsilon of the dtype it computes in."""
    rms(store, "none_single", (4, 5, 6), "NTC", 1, "float32", None)
    rms(store, "none_double", (4, 5, 6), "NTC", 1, "float64", None)
    rms(store, "none_half", (5, 16), "NC", 1, "float16", None)
    rms(store, "none_plain", (4, 5, 6), "NTC", 1, "float32", None, affine=False)
    # Values near the root of epsilon: here its exact value shows.
    rms(store, "none_single_small", (6, 8), "NC", 1, "float32", None, small=1e-4)
    rms(store, "none_double_small", (6, 8), "NC", 1, "float64", None, small=1e-8)
    rms(store, "none_half_small", (6, 8), "NC", 1, "float16", None, small=1e-3)
    rms(store, "eps_two_axes", (3, 2, 5, 4), "NCHW", 2, "float32", 1e-3)
