"""Beside Flax on JAX: float64 with the exact variance, and its own precision and fast variance."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.kernels import select

from .desk import NATIVE, close, cuts, draw, draw_affine, rng_of, rounded_once

pytestmark = pytest.mark.slow

DTYPES = ("float16", "float32", "float64")
# E[x²] - E[x]² loses what cancels where the mean is some deviations away.
FAST = {"float16": 3e-2, "float32": 2e-3, "float64": 1e-10}


@pytest.fixture(params=["numba"])
def kernel(request, monkeypatch) -> str:
    monkeypatch.setattr(select, "SMALL", 0)
    return request.param


@pytest.fixture
def linen():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        found = pytest.importorskip("flax.linen")
    jax.config.update("jax_enable_x64", True)
    return found


def params(dtype: str, **given: np.ndarray | None) -> dict[str, Any]:
    named = {name: values.astype(dtype) for name, values in given.items() if values is not None}
    return {"params": named} if named else {}


def near(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, axis: int) -> np.ndarray:
    x = draw(rng, shape, "float64", axis)
    return (x / np.maximum(1.0, np.abs(x).max() / 4)).astype(dtype)


def files(desk: Any, **given: np.ndarray | None) -> dict[str, str]:
    return {n: desk.write(n, values) for n, values in given.items() if values is not None}


def agrees(desk: Any, x: np.ndarray, kind: Any, affine: dict, told: dict, **options: Any) -> None:
    """Compare one layer in float64 and in the type of its input."""
    dtype, made = x.dtype.name, {}
    for used, fast in (("float64", False), (dtype, True)):
        more = {} if kind.__name__ == "RMSNorm" else {"use_fast_variance": fast}
        layer = kind(dtype=used, param_dtype=used, **more, **told)
        made[fast] = np.asarray(layer.apply(params(used, **affine), x.astype(used)))
    source, given = desk.put("x", x), files(desk, **affine)
    close(desk.apply(source, dtype="float64", **options, **given), made[False])
    own = desk.apply(source, **options, **given)
    rounded_once(own, made[False], dtype)
    close(own, made[True], FAST[dtype])


@pytest.mark.parametrize("momentum", [0.99, 0.6, 0.0, 1.0])
@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [((22, 5), "NC", 8), ((11, 6, 4), "NTC", 4), ((9, 3, 4, 5), "NHWC", 4)],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm(linen, desk, dtype, shape, layout, size, momentum):
    desk.turn(len(shape))
    rng = rng_of("batch", dtype, shape, momentum)
    channel = len(shape) - 1
    x = near(rng, shape, dtype, channel)
    scale, bias = draw_affine(rng, shape[-1:], dtype)
    affine = {} if momentum == 0.6 else {"scale": scale, "bias": bias}
    told = {
        "momentum": momentum,
        "use_scale": bool(affine),
        "use_bias": bool(affine),
        "dtype": "float64",
        "param_dtype": "float64",
        "use_fast_variance": False,
    }
    sizes = [size] * (shape[0] // size) + [shape[0] % size]
    state: Any = {"mean": np.zeros(shape[-1]), "var": np.ones(shape[-1])}
    trained = []
    for cut in cuts(sizes):
        layer = linen.BatchNorm(use_running_average=False, **told)
        given = {**params("float64", **affine), "batch_stats": state}
        piece, after = layer.apply(given, x[cut].astype("f8"), mutable=["batch_stats"])
        state = after["batch_stats"]
        trained.append(np.asarray(piece))
    options = {"layout": layout, "mode": "batch", "epsilon": 1e-5}
    source, given = desk.put("x", x), files(desk, **affine)
    own = desk.apply(source, training=True, batch_size=size, dtype="float64", **options, **given)
    close(own, np.concatenate(trained))
    fitted = normcli.fit(source, batch_size=size, momentum=momentum, **options)
    close(fitted.moving_mean, np.asarray(state["mean"]))
    close(fitted.moving_variance, np.asarray(state["var"]))
    other = near(rng, (4, *shape[1:]), dtype, channel)
    layer = linen.BatchNorm(use_running_average=True, **told)
    whole = {**params("float64", **affine), "batch_stats": state}
    evaluated = np.asarray(layer.apply(whole, other.astype("f8")))
    there = desk.put("other", other)
    close(desk.apply(there, stats=fitted, dtype="float64", **given), evaluated)
    rounded_once(desk.apply(there, stats=fitted, **given), evaluated, dtype)


@pytest.mark.parametrize(
    ("shape", "layout", "axes", "features"),
    [
        ((8, 7), "NC", [1], [1]),
        ((4, 6, 5), "NTC", [1, 2], [1, 2]),
        ((3, 4, 5, 6), "NHWC", [1, 3], [1, 3]),
        ((3, 4, 5, 6), "NHWC", [1, 2, 3], [3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_with_any_axes(linen, desk, dtype, shape, layout, axes, features):
    rng = rng_of("layer", dtype, shape, axes)
    x = near(rng, shape, dtype, 0)
    scale, bias = draw_affine(rng, tuple(shape[a] for a in features), dtype)
    agrees(
        desk,
        x,
        linen.LayerNorm,
        {"scale": scale, "bias": bias},
        {"reduction_axes": axes, "feature_axes": features},
        layout=layout,
        mode="custom",
        aggregate=",".join(map(str, axes)),
        scale_axes=",".join(map(str, features)),
        epsilon=1e-6,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_observations(linen, desk, dtype):
    rng = rng_of("observations", dtype)
    x = near(rng, (4, 3, 5, 6), dtype, 3)
    scale, bias = draw_affine(rng, (6,), dtype)
    both = {"scale": scale, "bias": bias}
    own = {"layout": "NHWC", "epsilon": 1e-6}
    agrees(desk, x, linen.InstanceNorm, both, {}, mode="instance", **own)
    for groups in (1, 2, 6):
        told = {"num_groups": groups}
        agrees(desk, x, linen.GroupNorm, both, told, mode="group", groups=groups, **own)
    for axes in ([3], [1, 2, 3]):
        weights = draw_affine(rng, tuple(x.shape[a] for a in axes), dtype)[0]
        agrees(
            desk,
            x,
            linen.RMSNorm,
            {"scale": weights},
            {"reduction_axes": axes, "feature_axes": axes},
            mode="layer",
            method="rms",
            aggregate=",".join(map(str, axes)),
            **own,
        )


def test_what_is_compared_in_its_own_precision(linen, desk):
    """The exact variance of float32 data agrees to float32, where the fast one does not."""
    x = (1e3 + np.random.default_rng(1).standard_normal((64, 8))).astype("float32")
    exact = desk.apply(desk.put("x", x), layout="NC", mode="layer", epsilon=1e-6)
    layer = {fast: linen.LayerNorm(use_fast_variance=fast) for fast in (False, True)}
    made = {
        fast: np.asarray(kind.apply(params("float32", scale=np.ones(8), bias=np.zeros(8)), x))
        for fast, kind in layer.items()
    }
    close(exact, made[False], NATIVE["float32"] * 20)
    assert np.abs(exact - made[True]).max() > 10 * np.abs(exact - made[False]).max()
