"""Beside torch itself: the same arrays through files and normcli, and through torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import normcli

from .desk import NATIVE, Desk, close, cuts, draw, draw_affine, rng_of, rounded_once

pytestmark = pytest.mark.slow

DTYPES = ("float64", "float32", "float16")
SEEDS = range(3)
LAYOUTS = {2: "NC", 3: "NCT", 4: "NCHW", 5: "NCDHW"}
SHAPES = [(37, 5), (9, 4, 21), (6, 8, 7, 5), (3, 4, 3, 6, 5)]
# More than one worker's tiles, so that small budgets cut it into blocks.
LARGE = (12, 16, 96, 64)
CHUNKS = (3, 4, 48, 32)
TIGHT = "6MiB"

Run = Callable[..., Any]


@dataclass
class Both:
    """What torch makes of arrays: in float64, which is the truth, and in their own precision."""

    exact: np.ndarray
    native: np.ndarray


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def functional(torch):
    return torch.nn.functional


def by_torch(torch: Any, run: Run, arrays: dict[str, np.ndarray]) -> Both:
    """Run a function of tensors on the arrays, as they are and in float64."""
    own = {name: torch.from_numpy(values) for name, values in arrays.items()}
    wide = {name: values.double() for name, values in own.items()}
    with torch.no_grad():
        return Both(run(**wide).numpy(), run(**own).numpy())


def agrees(desk: Desk, source: str, dtype: str, torchs: Both, **options: Any) -> None:
    """Compare an apply with torch: in float64 tightly, in the input's own type loosely."""
    close(desk.apply(source, dtype="float64", **options), torchs.exact)
    own = desk.apply(source, **options)
    rounded_once(own, torchs.exact, dtype)
    close(own, torchs.native, NATIVE[dtype])


def affine_files(
    desk: Desk, arrays: dict[str, np.ndarray], names: tuple[str, ...] = ("scale", "bias")
) -> dict[str, str]:
    return {name: desk.write(name, arrays[name]) for name in names if name in arrays}


def input_and_affine(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, affine: bool, axis: int = 1
) -> dict[str, np.ndarray]:
    arrays = {"x": draw(rng, shape, dtype, axis)}
    if affine:
        arrays["scale"], arrays["bias"] = draw_affine(rng, shape[1:2], dtype)
    return arrays


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_batch_norm_by_given_statistics(torch, functional, desk, seed, dtype, shape):
    desk.turn(seed + len(shape))
    rng = rng_of("given", seed, dtype, shape)
    arrays = input_and_affine(rng, shape, dtype, affine=seed > 0)
    arrays["mean"] = rng.normal(0, 3, shape[1]).astype(dtype)
    arrays["variance"] = rng.uniform(0.1, 6, shape[1]).astype(dtype)
    epsilon = (1e-5, 1e-3, 0.5)[seed]

    def run(x, mean, variance, scale=None, bias=None):
        return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)

    agrees(
        desk,
        desk.put("x", arrays["x"]),
        dtype,
        by_torch(torch, run, arrays),
        layout=LAYOUTS[len(shape)],
        mode="batch",
        epsilon=epsilon,
        **affine_files(desk, arrays, ("scale", "bias", "mean", "variance")),
    )


def module(torch: Any, arrays: dict[str, np.ndarray], momentum: float | None, dtype: str) -> Any:
    """Return a BatchNorm module of this precision with scale and bias of the arrays."""
    rank, affine = arrays["x"].ndim, "scale" in arrays
    kind = getattr(torch.nn, f"BatchNorm{max(rank - 2, 1)}d")
    layer = kind(
        arrays["x"].shape[1], momentum=momentum, affine=affine, dtype=getattr(torch, dtype)
    )
    if affine:
        layer.weight.data = torch.from_numpy(arrays["scale"].astype(dtype))
        layer.bias.data = torch.from_numpy(arrays["bias"].astype(dtype))
    return layer


def train(torch: Any, layer: Any, x: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Train on consecutive batches; return their outputs, joined."""
    rows = torch.from_numpy(x)
    with torch.no_grad():
        return torch.cat([layer.train()(rows[cut]) for cut in cuts(sizes)]).numpy()


def evaluate(torch: Any, layer: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return layer.eval()(torch.from_numpy(x)).numpy()


# Equal batches with a short last one can be trained on; the others only leave statistics behind.
TRAINED = [
    ((22, 5), [8, 8, 6]),
    ((10, 4, 9), [4, 4, 2]),
    ((11, 6, 5, 4), [5, 5, 1]),
    ((5, 3, 2, 4, 3), [2, 2, 1]),
]
UNEVEN = [
    ((26, 3), [7, 2, 11, 6]),
    ((14, 4, 5), [1, 6, 2, 5]),
    ((12, 5, 4, 3), [3, 1, 6, 2]),
    ((64, 2, 3, 1), [5, 9] + [10] * 5),
]
MOMENTA = (0.1, 0.3, None)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize(("shape", "sizes"), TRAINED, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_in_training(torch, desk, dtype, shape, sizes, momentum):
    desk.turn(len(shape))
    rng = rng_of("training", dtype, shape, momentum)
    arrays = input_and_affine(rng, shape, dtype, affine=momentum != 0.3)
    x, layout = arrays["x"], LAYOUTS[len(shape)]
    wide, own = (module(torch, arrays, momentum, used) for used in ("float64", dtype))
    trained = Both(train(torch, wide, x.astype("f8"), sizes), train(torch, own, x, sizes))

    source, files = desk.put("x", x), affine_files(desk, arrays)
    batch = {"layout": layout, "mode": "batch", "convention": "torch"}
    agrees(desk, source, dtype, trained, training=True, batch_size=sizes[0], **batch, **files)

    said = "cumulative" if momentum is None else momentum
    fitted = normcli.fit(source, batch_size=sizes[0], momentum=said, **batch)
    close(fitted.moving_mean, wide.running_mean.numpy())
    close(fitted.moving_variance, wide.running_var.numpy())
    close(fitted.moving_mean, own.running_mean.numpy(), NATIVE[dtype])
    close(fitted.moving_variance, own.running_var.numpy(), NATIVE[dtype])

    # Evaluation of other data by what training left behind.
    other = draw(rng, (7, *shape[1:]), dtype)
    close_by = Both(evaluate(torch, wide, other.astype("f8")), evaluate(torch, own, other))
    agrees(desk, desk.put("other", other), dtype, close_by, stats=fitted, **files)
    if not files:
        close(fitted.normalize(other, dtype="float64"), close_by.exact)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize(("shape", "sizes"), UNEVEN, ids=str)
def test_running_statistics_of_uneven_batches(torch, desk, shape, sizes, momentum):
    seed = (MOMENTA.index(momentum) + len(shape)) % 3
    desk.turn(seed)
    dtype = DTYPES[seed]
    arrays = input_and_affine(rng_of("uneven", seed, shape, momentum), shape, dtype, affine=True)
    x, files = arrays["x"], affine_files(desk, arrays)
    layer = module(torch, arrays, momentum, "float64")
    train(torch, layer, x.astype("f8"), sizes)
    options: dict[str, Any] = {
        "layout": LAYOUTS[len(shape)],
        "convention": "torch",
        "momentum": "cumulative" if momentum is None else momentum,
    }
    sidecar = str(desk.folder / ("s.json", "s.npz", "s.h5")[seed])
    source = desk.put("x", x)
    normcli.fit(source, sidecar, batch_size=tuple(sizes), **options)
    fitted = normcli.read_statistics(sidecar)
    close(fitted.moving_mean, layer.running_mean.numpy())
    close(fitted.moving_variance, layer.running_var.numpy())
    assert fitted.statistics.moving.batches == int(layer.num_batches_tracked)
    close(
        desk.apply(source, stats=sidecar, dtype="float64", **files),
        evaluate(torch, layer, x.astype("f8")),
    )

    # The same batches file by file, each fit continuing the one before.
    before = None
    for i, cut in enumerate(cuts(sizes)):
        part, after = desk.put(f"part{i}", x[cut]), str(desk.folder / f"after{i}.json")
        size = cut.stop - cut.start
        normcli.fit(part, after, update=before, batch_size=size, **options)
        before = after
    continued = normcli.read_statistics(before)
    close(continued.moving_mean, layer.running_mean.numpy())
    close(continued.moving_variance, layer.running_var.numpy())


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_instance_norm(torch, functional, desk, seed, dtype, shape):
    desk.turn(seed + len(shape))
    arrays = input_and_affine(rng_of("instance", seed, dtype, shape), shape, dtype, seed > 0)

    def run(x, scale=None, bias=None):
        return functional.instance_norm(x, weight=scale, bias=bias)

    agrees(
        desk,
        desk.put("x", arrays["x"]),
        dtype,
        by_torch(torch, run, arrays),
        layout=LAYOUTS[len(shape)],
        mode="instance",
        convention="torch",
        **affine_files(desk, arrays),
    )


TRAILING = [((33, 17), 1), ((4, 6, 19), 1), ((5, 7, 9), 2), ((6, 4, 5, 7), 3)]


@pytest.mark.parametrize(("shape", "trailing"), TRAILING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_layer_norm(torch, functional, desk, seed, dtype, shape, trailing):
    desk.turn(seed + len(shape))
    rng = rng_of("layer", seed, dtype, shape, trailing)
    inner = shape[-trailing:]
    arrays = {"x": draw(rng, shape, dtype, axis=0)}
    if seed > 0:
        arrays["scale"], arrays["bias"] = draw_affine(rng, inner, dtype)
    if seed > 1:
        del arrays["bias"]

    def run(x, scale=None, bias=None):
        return functional.layer_norm(x, inner, scale, bias)

    agrees(
        desk,
        desk.put("x", arrays["x"]),
        dtype,
        by_torch(torch, run, arrays),
        layout=LAYOUTS[len(shape)],
        mode="layer",
        aggregate=",".join(str(axis) for axis in range(-trailing, 0)),
        convention="torch",
        **affine_files(desk, arrays),
    )


# torch refuses groups of one value.
GROUPED = [
    (shape, groups)
    for shape in ((9, 12), (4, 12, 11), (2, 12, 3, 5, 4))
    for groups in (1, 2, 3, 12)
    if math.prod(shape[1:]) > groups
]


@pytest.mark.parametrize(("shape", "groups"), GROUPED, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm(torch, functional, desk, dtype, shape, groups):
    desk.turn(groups + len(shape))
    rng = rng_of("group", groups, dtype, shape)
    arrays = input_and_affine(rng, shape, dtype, affine=groups != 3)

    def run(x, scale=None, bias=None):
        return functional.group_norm(x, groups, scale, bias)

    agrees(
        desk,
        desk.put("x", arrays["x"]),
        dtype,
        by_torch(torch, run, arrays),
        layout=LAYOUTS[len(shape)],
        mode="group",
        groups=groups,
        convention="torch",
        **affine_files(desk, arrays),
    )


@pytest.mark.parametrize(("shape", "trailing"), TRAILING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("epsilon", "small"),
    [(None, False), (None, True), (1e-3, False)],
    ids=["none", "none_small", "given"],
)
def test_rms_norm(torch, functional, desk, small, dtype, shape, trailing, epsilon):
    desk.turn(trailing + len(shape))
    rng = rng_of("rms", dtype, shape, trailing, epsilon)
    inner = shape[-trailing:]
    # float16 is computed in float32 and takes its epsilon.
    machine = float(np.finfo("f8" if dtype == "float64" else "f4").eps)
    x = draw(rng, shape, "float64", axis=0)
    if small:  # near the root of the machine epsilon, where its exact value shows
        x *= math.sqrt(machine) / np.abs(x).max()
    arrays = {"x": x.astype(dtype), "scale": draw_affine(rng, inner, dtype)[0]}

    def run(x, scale):
        own = x.dtype == getattr(torch, dtype)
        wide = machine if epsilon is None else epsilon
        return functional.rms_norm(x, inner, scale, epsilon if own else wide)

    settings: dict[str, Any] = {} if epsilon is None else {"epsilon": epsilon}
    agrees(
        desk,
        desk.put("x", arrays["x"]),
        dtype,
        by_torch(torch, run, arrays),
        layout=LAYOUTS[len(shape)],
        mode="layer",
        method="rms",
        aggregate=",".join(str(axis) for axis in range(-trailing, 0)),
        convention="torch",
        **settings,
        **affine_files(desk, arrays),
    )


def test_channels_last(torch, functional, desk):
    rng = rng_of("channels last")
    arrays = input_and_affine(rng, (4, 9, 7, 6), "float32", affine=False, axis=3)
    arrays["scale"], arrays["bias"] = draw_affine(rng, (6,), "float32")
    options = {"layout": "NHWC", "convention": "torch"} | affine_files(desk, arrays)
    source = desk.put("x", arrays["x"])

    def instance(x, scale, bias):
        moved = functional.instance_norm(x.movedim(-1, 1), weight=scale, bias=bias)
        return moved.movedim(1, -1).contiguous()

    def groups(x, scale, bias):
        moved = functional.group_norm(x.movedim(-1, 1).contiguous(), 3, scale, bias)
        return moved.movedim(1, -1).contiguous()

    def batch(x, scale, bias):
        moved = functional.batch_norm(x.movedim(-1, 1), None, None, scale, bias, training=True)
        return moved.movedim(1, -1).contiguous()

    for run, settings in (
        (instance, {"mode": "instance"}),
        (groups, {"mode": "group", "groups": 3}),
        (batch, {"mode": "batch"}),
    ):
        agrees(desk, source, "float32", by_torch(torch, run, arrays), **options, **settings)


@pytest.mark.parametrize("place", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_spreads_as_in_torch(torch, functional, desk, dtype, place):
    rng = rng_of("not finite", dtype)
    arrays = {"x": draw(rng, (5, 4, 6), dtype)}
    arrays["x"][2, 1, 3] = place
    options = {"layout": "NCT", "nonfinite": "propagate", "convention": "torch"}
    source = desk.put("x", arrays["x"])
    for run, settings in (
        (lambda x: functional.instance_norm(x), {"mode": "instance"}),
        (lambda x: functional.layer_norm(x, (6,)), {"mode": "layer"}),
        (lambda x: functional.group_norm(x, 2), {"mode": "group", "groups": 2}),
        (lambda x: functional.batch_norm(x, None, None, training=True), {"mode": "batch"}),
    ):
        agrees(desk, source, dtype, by_torch(torch, run, arrays), **options, **settings)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_array_in_many_blocks(torch, functional, desk, dtype):
    desk.turn(DTYPES.index(dtype))
    rng = rng_of("large", dtype)
    arrays = input_and_affine(rng, LARGE, dtype, affine=True)
    source, files = desk.put("x", arrays["x"], CHUNKS), affine_files(desk, arrays)
    options = {"layout": "NCHW", "convention": "torch", "workers": 2, "memory": TIGHT} | files
    for run, settings in (
        (
            lambda x, scale, bias: functional.batch_norm(x, None, None, scale, bias, training=True),
            {"mode": "batch"},
        ),
        (
            lambda x, scale, bias: functional.instance_norm(x, weight=scale, bias=bias),
            {"mode": "instance"},
        ),
        (
            lambda x, scale, bias: functional.group_norm(x, 4, scale, bias),
            {"mode": "group", "groups": 4},
        ),
    ):
        agrees(desk, source, dtype, by_torch(torch, run, arrays), **options, **settings)

    layer = module(torch, arrays, 0.3, "float64")
    train(torch, layer, arrays["x"].astype("f8"), [5, 1, 4, 2])
    fitted = normcli.fit(
        source,
        batch_size=(5, 1, 4, 2),
        momentum=0.3,
        layout="NCHW",
        convention="torch",
        memory=TIGHT,
    )
    close(fitted.moving_mean, layer.running_mean.numpy())
    close(fitted.moving_variance, layer.running_var.numpy())
