"""Beside Keras itself, on its torch backend, which computes in float32 whatever it gets."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.kernels import select

from .desk import close, cuts, draw, draw_affine, rng_of

pytestmark = pytest.mark.slow

# Keras computes in float32, and some layers as E[x²] - E[x]²; float16 data are rounded on the way.
LOOSE = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-3}
DTYPES = tuple(LOOSE)


@pytest.fixture
def layers(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras").layers


@pytest.fixture(params=["numba"])
def kernel(request, monkeypatch) -> str:
    """Run the compiled kernels; torch is there to compare both."""
    monkeypatch.setattr(select, "SMALL", 0)
    return request.param


def near(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, axis: int) -> np.ndarray:
    """Draw values whose mean is a few deviations at most, as E[x²] - E[x]² needs it."""
    x = draw(rng, shape, "float64", axis)
    return (x / np.maximum(1.0, np.abs(x).max() / 4)).astype(dtype)


def built(layer: Any, x: np.ndarray, **weights: np.ndarray | None) -> Any:
    layer.build((None, *x.shape[1:]))
    for name, values in weights.items():
        if values is not None:
            getattr(layer, name).assign(values.astype("float32"))
    return layer


def numbers(layer: Any, x: np.ndarray, **call: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(layer(x, **call).detach().numpy(), "f8")


def weight(variable: Any) -> np.ndarray:
    return variable.value.detach().numpy()


def files(desk: Any, scale: np.ndarray | None, bias: np.ndarray | None) -> dict[str, str]:
    found = {}
    for name, values in (("scale", scale), ("bias", bias)):
        if values is not None:
            found[name] = desk.write(name, values)
    return found


def agrees(desk: Any, x: np.ndarray, keras: np.ndarray, dtype: str, **options: Any) -> None:
    close(desk.apply(desk.put("x", x), **options), keras, LOOSE[dtype])


SHAPES = [((22, 5), "NC"), ((12, 6, 4), "NTC"), ((11, 3, 4, 5), "NHWC"), ((6, 2, 3, 2, 4), "NDHWC")]


@pytest.mark.parametrize("momentum", [None, 0.6])
@pytest.mark.parametrize(("shape", "layout"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_normalization(layers, desk, dtype, shape, layout, momentum):
    desk.turn(len(shape))
    rng = rng_of("batch", dtype, shape, momentum)
    channel = len(shape) - 1
    x = near(rng, shape, dtype, channel)
    scale, bias = draw_affine(rng, shape[-1:], dtype) if momentum else (None, None)
    said = {} if momentum is None else {"momentum": momentum}
    layer = layers.BatchNormalization(
        dtype="float32", scale=scale is not None, center=bias is not None, **said
    )
    built(layer, x, gamma=scale, beta=bias)
    size = 5
    sizes = [size] * (shape[0] // size) + [shape[0] % size]
    trained = np.concatenate([numbers(layer, x[cut], training=True) for cut in cuts(sizes)])
    options = {"layout": layout, "convention": "keras"}
    source, given = desk.put("x", x), files(desk, scale, bias)
    own = desk.apply(source, training=True, batch_size=size, **options, **given)
    close(own, trained, LOOSE[dtype])
    fitted = normcli.fit(source, batch_size=size, **said, **options)
    close(fitted.moving_mean, weight(layer.moving_mean), 1e-4)
    close(fitted.moving_variance, weight(layer.moving_variance), 1e-4)
    other = near(rng, (4, *shape[1:]), dtype, channel)
    evaluated = numbers(layer, other, training=False)
    close(desk.apply(desk.put("other", other), stats=fitted, **given), evaluated, LOOSE[dtype])


LAYERS = [
    ((8, 7), "NC", -1),
    ((4, 6, 5), "NTC", [1, 2]),
    ((4, 6, 5), "NTC", [2, 1]),
    ((3, 4, 5, 6), "NHWC", [1, 2, 3]),
    ((3, 4, 5, 6), "NHWC", [1, 3]),
]


@pytest.mark.parametrize("terms", ["both", "scale", "bias", "none"])
@pytest.mark.parametrize(("shape", "layout", "axis"), LAYERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_normalization(layers, desk, dtype, shape, layout, axis, terms):
    desk.turn(len(shape))
    rng = rng_of("layer", dtype, shape, axis, terms)
    x = near(rng, shape, dtype, 0)
    axes = sorted(a % len(shape) for a in np.atleast_1d(axis).tolist())
    scale, bias = draw_affine(rng, tuple(shape[a] for a in axes), dtype)
    scale = scale if terms in ("both", "scale") else None
    bias = bias if terms in ("both", "bias") else None
    layer = layers.LayerNormalization(
        axis=axis, scale=scale is not None, center=bias is not None, dtype="float32"
    )
    built(layer, x, gamma=scale, beta=bias)
    agrees(
        desk,
        x,
        numbers(layer, x),
        dtype,
        layout=layout,
        mode="layer",
        aggregate=",".join(map(str, np.atleast_1d(axis))),
        convention="keras",
        **files(desk, scale, bias),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_scaling_divides_by_the_deviation(layers, desk, dtype):
    """What the code of Keras does; its documentation says the root of the mean square."""
    rng = rng_of("rms scaling", dtype)
    x = near(rng, (5, 3, 8), dtype, 0)
    scale, _ = draw_affine(rng, (8,), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = layers.LayerNormalization(axis=-1, rms_scaling=True, dtype="float32")
        made = numbers(built(layer, x, gamma=scale), x)
    options = {"layout": "NTC", "mode": "layer", "convention": "keras", "scale": None}
    options["scale"] = desk.write("scale", scale)
    agrees(desk, x, made, dtype, method="std", **options)
    documented = desk.apply(desk.put("x", x), method="rms", epsilon=1e-3, **options)
    assert np.abs(documented.astype("f8") - made).max() > 0.05


@pytest.mark.parametrize("axis", [-1, [1, 2]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_normalization(layers, desk, dtype, axis):
    rng = rng_of("rms", dtype, axis)
    x = near(rng, (5, 3, 8), dtype, 0)
    axes = [2] if axis == -1 else axis
    scale, _ = draw_affine(rng, tuple(x.shape[a] for a in axes), dtype)
    layer = built(layers.RMSNormalization(axis=axis, dtype="float32"), x, scale=scale)
    agrees(
        desk,
        x,
        numbers(layer, x),
        dtype,
        layout="NTC",
        mode="layer",
        method="rms",
        aggregate=",".join(map(str, axes)),
        convention="keras",
        scale=desk.write("scale", scale),
    )


@pytest.mark.parametrize("groups", [1, 2, 3, 6, -1])
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_normalization(layers, desk, dtype, first, groups):
    desk.turn(groups)
    shape, layout = ((4, 6, 3, 2), "NCHW") if first else ((4, 3, 2, 6), "NHWC")
    rng = rng_of("group", dtype, groups, first)
    axis = layout.index("C")
    x = near(rng, shape, dtype, axis)
    scale, bias = draw_affine(rng, (6,), dtype)
    layer = layers.GroupNormalization(groups=groups, axis=axis, dtype="float32")
    made = numbers(built(layer, x, gamma=scale, beta=bias), x)
    mode = {"mode": "instance"} if groups == -1 else {"mode": "group", "groups": groups}
    given = files(desk, scale, bias)
    agrees(desk, x, made, dtype, layout=layout, convention="keras", **mode, **given)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_convert_hands_over(layers, desk, dtype):
    """set_weights takes an .npz as it is, and a saved layer comes back."""
    rng = rng_of("weights", dtype)
    x = near(rng, (13, 4, 3), dtype, 2)
    scale, bias = draw_affine(rng, (3,), dtype)
    source, given = desk.put("x", x), files(desk, scale, bias)
    fitted = str(desk.folder / "s.json")
    normcli.fit(source, fitted, layout="NTC", convention="keras", batch_size=5)
    whole = str(desk.folder / "all.json")
    ours = desk.apply(source, stats=fitted, stats_out=whole, **given)
    normcli.convert(whole, desk.folder / "bn.npz", target="keras")
    layer = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, dtype="float32")
    layer.build((None, 4, 3))
    with np.load(desk.folder / "bn.npz") as saved:
        layer.set_weights([saved[name] for name in saved])
    close(ours, numbers(layer, x, training=False), LOOSE[dtype])
    np.savez(desk.folder / "w.npz", **{
        variable.name: weight(variable) for variable in layer.weights
    })  # fmt: skip
    back = desk.folder / "back.json"
    normcli.convert(desk.folder / "w.npz", back, source="keras", layout="NTC")
    close(desk.apply(source, stats=str(back)), np.asarray(ours, "f8"), LOOSE[dtype])
