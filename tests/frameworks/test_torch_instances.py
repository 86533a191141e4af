"""Running statistics of torch's InstanceNorm: of observations, averaged over each batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normcli
from normcli.engine.events import Observer

from .desk import NATIVE, close, cuts, draw, draw_affine, rng_of, rounded_once

pytestmark = pytest.mark.slow

LAYOUTS = {3: "NCT", 4: "NCHW", 5: "NCDHW"}
DTYPES = ("float16", "float32", "float64")
UNEVEN = [
    ((14, 4, 5), [1, 6, 2, 5]),
    ((12, 5, 4, 3), [5, 5, 2]),
    ((7, 2, 3, 2, 2), [3, 1, 2, 1]),
]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def layer_of(torch: Any, x: np.ndarray, momentum: float, affine: Any, dtype: str) -> Any:
    kind = getattr(torch.nn, f"InstanceNorm{x.ndim - 2}d")
    layer = kind(
        x.shape[1],
        momentum=momentum,
        affine=affine is not None,
        track_running_stats=True,
        dtype=getattr(torch, dtype),
    )
    if affine is not None:
        layer.weight.data, layer.bias.data = (torch.from_numpy(a.astype(dtype)) for a in affine)
    return layer


def run(torch: Any, layer: Any, x: np.ndarray, sizes: list[int]) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([layer(torch.from_numpy(x[cut])) for cut in cuts(sizes)]).numpy()


@pytest.mark.parametrize(("shape", "sizes"), UNEVEN, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.1, 0.4, 1.0, 0.0])
def test_running_statistics_of_instances(torch, desk, momentum, dtype, shape, sizes):
    desk.turn(len(shape) + DTYPES.index(dtype))
    rng = rng_of("instances", dtype, shape, momentum)
    x = draw(rng, shape, dtype)
    affine = draw_affine(rng, shape[1:2], dtype) if momentum != 0.4 else None
    wide = layer_of(torch, x, momentum, affine, "float64")
    own = layer_of(torch, x, momentum, affine, dtype)
    trained = run(torch, wide.train(), x.astype("f8"), sizes)
    run(torch, own.train(), x, sizes)

    options = {"layout": LAYOUTS[len(shape)], "mode": "instance", "convention": "torch"}
    files = {}
    if affine is not None:
        files = {n: desk.write(n, a) for n, a in zip(("scale", "bias"), affine, strict=True)}
    source = desk.put("x", x)
    sidecar = str(desk.folder / "s.json")
    normcli.fit(source, sidecar, momentum=momentum, batch_size=tuple(sizes), **options)
    fitted = normcli.read_statistics(sidecar)
    for ours, name in (
        (fitted.moving_mean, "running_mean"),
        (fitted.moving_variance, "running_var"),
    ):
        close(ours, getattr(wide, name).numpy())
        close(ours, getattr(own, name).numpy(), NATIVE[dtype])

    # In training each observation has its own statistics, in evaluation all have the running ones.
    close(desk.apply(source, dtype="float64", **options, **files), trained)
    other = draw(rng, (5, *shape[1:]), dtype)
    there = desk.put("other", other)
    evaluated = run(torch, wide.eval(), other.astype("f8"), [5])
    for how in ({}, {"estimate": "moving"}):
        close(desk.apply(there, dtype="float64", stats=sidecar, **how, **files), evaluated)
    rounded_once(desk.apply(there, stats=sidecar, **files), evaluated, dtype)
    if not files:
        close(fitted.normalize(other, dtype="float64"), evaluated)

    # Batch by batch, each fit continuing the one before; settings are taken from it.
    before = None
    for i, cut in enumerate(cuts(sizes)):
        part, after = desk.put(f"part{i}", x[cut]), str(desk.folder / f"after{i}.json")
        given = options | {"momentum": momentum, "batch_size": 100} if before is None else {}
        normcli.fit(part, after, update=before, **given)
        before = after
    continued = normcli.read_statistics(before)
    np.testing.assert_array_equal(continued.moving_mean, fitted.moving_mean)
    np.testing.assert_array_equal(continued.moving_variance, fitted.moving_variance)


def test_a_start_and_what_is_not_finite(torch, desk):
    x = draw(rng_of("start"), (6, 3, 4, 5), "float64")
    x[4, 1, 2, 3] = np.nan
    first, rest = desk.put("first", x[:2]), desk.put("rest", x[2:])
    options = {"layout": "NCHW", "mode": "instance", "convention": "torch", "batch_size": 2}
    options |= {"nonfinite": "propagate"}
    begun = normcli.fit(first, desk.folder / "begun.json", **options)
    layer = layer_of(torch, x, 0.1, None, "float64")
    run(torch, layer.train(), x[:2], [2])
    close(begun.moving_mean, layer.running_mean.numpy())
    run(torch, layer, x[2:], [2, 2])
    ended = normcli.fit(rest, moving_start=str(desk.folder / "begun.json"), **options)
    close(ended.moving_mean, layer.running_mean.numpy())
    close(ended.moving_variance, layer.running_var.numpy())
    assert list(np.isnan(ended.moving_mean)) == [False, True, False]


def test_a_layer_and_back(torch, desk):
    """convert writes what the layer loads, and reads what it saves."""
    rng = rng_of("layer and back")
    x = draw(rng, (9, 4, 3, 5), "float64")
    source = desk.put("x", x)
    options = {"layout": "NCHW", "mode": "instance", "convention": "torch", "batch_size": 4}
    normcli.fit(source, desk.folder / "s.json", momentum=0.3, **options)
    told = _Told()
    normcli.convert(desk.folder / "s.json", desk.folder / "in.npz", target="torch", observer=told)
    assert "torch.nn.InstanceNorm2d(4, eps=1e-05, momentum=0.3, affine=False, track" in told.text
    layer = torch.nn.InstanceNorm2d(4, momentum=0.3, track_running_stats=True).double()
    with np.load(desk.folder / "in.npz") as saved:
        layer.load_state_dict({name: torch.from_numpy(saved[name]) for name in saved})
    evaluated = run(torch, layer.eval(), x, [9])
    close(desk.apply(source, stats=str(desk.folder / "s.json")), evaluated)
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    np.savez(desk.folder / "state.npz", **state)
    normcli.convert(desk.folder / "state.npz", desk.folder / "back.json", layout="NCHW")
    close(desk.apply(source, stats=str(desk.folder / "back.json")), evaluated)


class _Told(Observer):
    text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"
