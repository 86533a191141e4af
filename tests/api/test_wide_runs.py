"""Data beyond float64 in runs of every kind: learned from, in parts, and on a cluster."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import normcli
from normcli.errors import DataPolicyError
from tests.examples import pairs

from .stores import store
from .test_learning import small_blocks
from .wide_cases import LAYOUT, MODES, SHAPE, exactly, floats, integers

SCALED = {"batch": (1,), "instance": (1,), "layer": (1, 2), "group": (1,)}


def cells(x: np.ndarray, mode: str):
    """Yield the place of each cell among the scales, and where its elements are."""
    axes = SCALED[mode]
    for place in np.ndindex(*(x.shape[axis] for axis in axes)):
        index = [slice(None)] * x.ndim
        for axis, i in zip(axes, place, strict=True):
            index[axis] = i
        yield place, tuple(index)


def least_squares(z: np.ndarray, t: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and bias of each cell by rational numbers alone."""
    shape = tuple(z.shape[axis] for axis in SCALED[mode])
    scale, bias = np.empty(shape), np.empty(shape)
    for place, index in cells(z, mode):
        own = [Fraction(v) for v in z[index].ravel().tolist()]
        aim = [Fraction(v) for v in t[index].ravel().tolist()]
        mean, far = sum(own) / len(own), sum(aim) / len(aim)
        spread = sum((v - mean) ** 2 for v in own)
        slope = sum((v - mean) * (w - far) for v, w in zip(own, aim, strict=True)) / spread
        scale[place], bias[place] = float(slope), float(far - slope * mean)
    return scale, bias


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("elements", [1 << 20, 60])
def test_learned_from_integers_beyond_2_53(tmp_path, mode, elements):
    x = integers("i8")
    if mode in ("layer", "group"):
        # Channels that lie far apart would be one value each within their groups.
        x[:, 1:] = x[:, :1] + np.arange(1, 4)[:, np.newaxis] * 7 + x[:, 1:] % 500
    noise = np.random.default_rng(2).integers(-50, 50, SHAPE)
    targets = {"near": (x % 1000) * 3.0 + noise, "far": x - x % 1000 + (x % 1000) // 2 + noise}
    name = store(tmp_path, "x", x)
    options = {"layout": LAYOUT, "epsilon": 0.0, **MODES[mode][0]}
    normcli.fit(name, tmp_path / "s.json", **options)
    z = exactly(x, mode)
    for kind, t in targets.items():
        aim = store(tmp_path, kind, t)
        with small_blocks(elements):
            found = normcli.learn(name, aim, **options)
            known = normcli.learn(name, aim, stats=tmp_path / "s.json")
        scale, bias = least_squares(z, t, mode)
        for affine in (found.affine, known.affine):
            np.testing.assert_allclose(affine.scale, scale, rtol=1e-11)
            np.testing.assert_allclose(affine.bias, bias, rtol=1e-13, atol=1e-9)


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_learned_against_itself(tmp_path, dtype):
    x = integers(dtype)
    name = store(tmp_path, "x", x)
    found = normcli.learn(name, name, layout=LAYOUT, epsilon=0.0)
    stats = normcli.fit(name, layout=LAYOUT, epsilon=0.0)
    np.testing.assert_allclose(found.affine.scale, stats.std, rtol=1e-12)
    # The bias is a float64 number, to which the mean is rounded.
    np.testing.assert_allclose(found.affine.bias, stats.mean, rtol=3e-16)


@pytest.mark.parametrize("mode", MODES)
def test_learned_from_squares_that_leave_float64(tmp_path, mode):
    x = floats()
    if mode in ("layer", "group"):
        x[:] = x[:, 2:3] * np.arange(1, 5)[:, np.newaxis]
    t = np.random.default_rng(3).integers(-100, 100, SHAPE) + 3.0 * np.sign(x)
    name, aim = store(tmp_path, "x", x), store(tmp_path, "t", t)
    options = {"layout": LAYOUT, "epsilon": 0.0, **MODES[mode][0]}
    scale, bias = least_squares(exactly(x, mode), t, mode)
    for elements in (1 << 20, 60):
        with small_blocks(elements):
            found = normcli.learn(name, aim, **options)
        size = np.abs(scale).max(), np.abs(bias).max()
        np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-10, atol=1e-12 * size[0])
        np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-10, atol=1e-12 * size[1])


def test_targets_whose_products_leave_float64_are_refused(tmp_path):
    name = store(tmp_path, "x", np.random.default_rng(1).normal(size=SHAPE))
    with pytest.raises(DataPolicyError, match="leave float64"):
        normcli.learn(name, store(tmp_path, "t", floats()), layout=LAYOUT)


@pytest.mark.parametrize(
    ("mode", "suffix"), pairs(MODES, ["json", "npz", "h5", "zarr", "safetensors"])
)
@pytest.mark.parametrize("make", [lambda: integers("u8"), floats], ids=["ints", "floats"])
def test_parts_merge_to_the_whole(tmp_path, mode, make, suffix):
    x = make()
    name = store(tmp_path, "x", x, "zarr3", (3, 4, 30))
    options = {"layout": LAYOUT, "epsilon": 0.0, **MODES[mode][0]}
    whole = normcli.fit(name, tmp_path / "whole.npz", **options)
    parts = [tmp_path / f"{i}.{suffix}" for i in (1, 2, 3)]
    for i, path in enumerate(parts, 1):
        normcli.fit(name, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in reversed(parts)], tmp_path / f"all.{suffix}")
    read = normcli.read_statistics(tmp_path / f"all.{suffix}")
    own = whole.statistics.moments
    for other in (merged, read):
        moments = other.statistics.moments
        assert type(moments) is type(own)
        for field in own.names():
            np.testing.assert_array_equal(getattr(moments, field), getattr(own, field))
    normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / f"all.{suffix}")
    size = np.abs(want := exactly(x, mode)).max((0, 2), keepdims=True)
    assert np.all(np.abs(np.load(tmp_path / "y.npy") - want) <= 1e-14 * size)
