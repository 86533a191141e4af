"""Norms and quantiles of magnitudes whose squares leave float64, against rational numbers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import normcli
from normcli.errors import DataPolicyError
from tests.cli.terminal import call
from tests.examples import pairs

from .stores import hold_groups, store
from .wide_cases import LAYOUT, MODES, SCALES, SHAPE, groups, integers, root

pytest.importorskip("datasketches")

METHODS = {
    "lp 1": {"method": "lp", "p": 1},
    "lp 2": {"method": "lp", "p": 2},
    "lp 3": {"method": "lp", "p": 3},
    "lp inf": {"method": "lp", "p": float("inf")},
    "robust": {"method": "robust"},
}
SUFFIXES = ("json", "npz", "h5", "zarr", "safetensors")


def far(mode: str = "batch") -> np.ndarray:
    """Return data of both ends of float64, whose norms stay within it; a group has one size."""
    x = np.random.default_rng(6).integers(-1000, 1000, SHAPE).astype("f8")
    scales = np.array(SCALES) * [1, 1, 1, 2.0**-12]
    if mode in ("layer", "group"):
        return x * np.tile(scales, 3)[:, None, None]
    return x * scales[:, None]


def sizes(x: np.ndarray, mode: str) -> np.ndarray:
    """Return the largest magnitude of what has one size."""
    axes = (1, 2) if mode in ("layer", "group") else (0, 2)
    return np.broadcast_to(np.abs(x).max(axes, keepdims=True), x.shape)


def coarse(x: np.ndarray, mode: str) -> np.ndarray:
    """Return the relative error of norms and quantiles, which are float64 numbers.

    Between multiples of the smallest there is nothing: of magnitudes of 1000 of these, they are off
    by up to half of one.
    """
    return np.where(sizes(x, mode) < 1e-319, 2e-3, 4e-15)


def exactly(x: np.ndarray, mode: str, method: str) -> np.ndarray:
    """Normalize by rational numbers, and the quantiles that NumPy finds."""
    flat, out = x.reshape(-1), np.empty(x.size)
    for places in groups(x, mode):
        values = [Fraction(value) for value in flat[places].tolist()]
        center = Fraction(0)
        if method == "robust":
            # Scaled by a power of two, which changes no bit, from where squares do not matter.
            scale = 2.0 ** -int(np.frexp(np.abs(flat[places]).max())[1] // 2)
            low, mid, high = np.quantile(flat[places] * scale, [0.25, 0.5, 0.75])
            center, low, high = (Fraction(v) / Fraction(scale) for v in (mid, low, high))
            divisor = high - low
        elif method == "lp 1":
            divisor = sum(abs(v) for v in values)
        elif method == "lp 3":
            # A power of two below the largest keeps the cube of the norm within float64.
            unit = Fraction(2) ** int(np.frexp(np.abs(flat[places]).max())[1])
            divisor = unit * Fraction(math.cbrt(sum(abs(v / unit) ** 3 for v in values)))
        elif method == "lp inf":
            divisor = max(abs(v) for v in values)
        else:
            divisor = root(sum(v * v for v in values))
        out[places] = [float((v - center) / divisor) for v in values]
    return out.reshape(x.shape)


@pytest.mark.parametrize(("mode", "method"), pairs(MODES, METHODS))
def test_norms_and_quantiles(tmp_path, mode, method):
    x = far(mode)
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {"layout": LAYOUT, **METHODS[method], **MODES[mode][0]}
    normcli.apply(name, output, **options)
    y, want = np.load(output), exactly(x, mode, method)
    assert np.all(np.abs(y - want) <= coarse(x, mode) * sizes(want, mode))
    for kind in SUFFIXES:
        fitted = normcli.fit(name, tmp_path / f"s.{kind}", **options)
        normcli.apply(name, tmp_path / f"{kind}.npy", stats=tmp_path / f"s.{kind}")
        np.testing.assert_array_equal(np.load(tmp_path / f"{kind}.npy"), y)
        np.testing.assert_array_equal(fitted.normalize(x), y)
    normcli.apply(output, tmp_path / "b.npy", stats=f"{output}.stats.json", inverse=True)
    back = np.load(tmp_path / "b.npy")
    assert np.all(np.abs(back - x) <= 4e-15 * sizes(x, mode) + 5e-324)
    for path in (output, tmp_path / "s.json"):
        ended = call("verify", str(path))
        assert ended.code == 0, ended.err
    ended = call("check", str(tmp_path / "s.npz"), name)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("method", METHODS)
def test_any_cut_gives_the_same_bits(tmp_path, method):
    x = far()
    options = {"layout": LAYOUT, **METHODS[method]}
    one = normcli.fit(store(tmp_path, "x", x), **options)
    cut = store(tmp_path, "cut", x, "zarr3", (1, 4, 7))
    parts = [tmp_path / f"part{i}.npz" for i in (1, 2, 3)]
    for i, path in enumerate(parts, 1):
        normcli.fit(cut, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in reversed(parts)], tmp_path / "all.npz")
    normcli.fit(store(tmp_path, "a", x[:5]), tmp_path / "a.npz", **options)
    more = normcli.fit(store(tmp_path, "b", x[5:]), update=tmp_path / "a.npz")
    for other in (merged, more, normcli.read_statistics(tmp_path / "all.npz")):
        moments, own = other.statistics.moments, one.statistics.moments
        for name in own.names():
            # Norms of p other than 2 are rounded before they are merged.
            bound = 1e-15 if name == "norm" and method in ("lp 1", "lp 3") else 0
            np.testing.assert_allclose(getattr(moments, name), getattr(own, name), rtol=bound)


@pytest.mark.parametrize("method", METHODS)
def test_more_groups_than_memory_holds(tmp_path, monkeypatch, method):
    hold_groups(monkeypatch, 30)
    name = store(tmp_path, "x", far())
    options = {"layout": LAYOUT, "mode": "instance", **METHODS[method]}
    normcli.apply(name, tmp_path / "y.npy", stats_out=tmp_path / "y.zarr", **options)
    want = exactly(np.load(name), "instance", method)
    y = np.load(tmp_path / "y.npy")
    assert np.all(np.abs(y - want) <= coarse(np.load(name), "instance") * sizes(want, "batch"))
    normcli.fit(name, tmp_path / "s.zarr", **options)
    normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / "s.zarr")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


def test_quantiles_of_both_ends(tmp_path):
    """The difference of two quantiles may leave float64, where both fit."""
    x = np.arange(-4, 5) * 4.25e307
    normcli.apply(store(tmp_path, "x", x[:, None]), tmp_path / "y.npy", method="robust")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy")[:, 0], np.arange(-4, 5) / 4, rtol=1e-15)


def test_powers_of_a_very_large_p_are_refused(tmp_path):
    with pytest.raises(DataPolicyError, match="powers of 2000"):
        normcli.fit(store(tmp_path, "x", far()), layout=LAYOUT, method="lp", p=2000)


def test_norms_beyond_float64_are_refused(tmp_path):
    x = np.full((30, 2), 1.7e308)
    with pytest.raises(DataPolicyError, match="leave float64"):
        normcli.fit(store(tmp_path, "x", x), layout="NC", method="lp")


def test_epsilon_is_the_least_norm(tmp_path):
    x = far()
    options = {"layout": LAYOUT, "method": "lp", "epsilon": 1e-150}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(y[:, 2], x[:, 2] / 1e-150, rtol=1e-15)
    np.testing.assert_allclose(y[:, 3], exactly(x, "batch", "lp 2")[:, 3], rtol=1e-14)


@pytest.mark.parametrize("method", ["lp 2", "robust"])
def test_what_frameworks_cannot_hold_is_said(tmp_path, method):
    normcli.fit(store(tmp_path, "x", far()), tmp_path / "s.json", layout=LAYOUT, **METHODS[method])
    for target in ("torch", "keras", "onnx", "sklearn", "torchvision", "kaldi"):
        ended = call("convert", tmp_path / "s.json", "-o", tmp_path / f"o.{target}.json"
                     if target not in ("onnx", "kaldi") else tmp_path / f"o.{target}.txt",
                     "--to", target)  # fmt: skip
        assert ended.code in (2, 7), (target, ended.err)
    ended = call("extract", tmp_path / "s.json", "variance")
    assert (ended.code, "leaves float64" in ended.err) == (7, True)
    name = "norm" if method == "lp 2" else "spread"
    assert call("extract", tmp_path / "s.json", name).code == 0
    assert call("inspect", tmp_path / "s.json").code == 0


def test_integers_beyond_2_53_have_norms(tmp_path):
    x = integers("u8")
    for method in ("lp 1", "lp 2", "lp inf"):
        normcli.apply(
            store(tmp_path, "x", x), tmp_path / "y.npy", layout=LAYOUT, overwrite=True,
            **METHODS[method],
        )  # fmt: skip
        want = exactly(x, "batch", method)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-15)
    assert x.shape == SHAPE


def test_integers_that_quantiles_cannot_tell_apart(tmp_path):
    name = store(tmp_path, "x", x := integers("i8"))
    fitted = normcli.fit(name, tmp_path / "s.json", layout=LAYOUT, method="robust")
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        fitted.normalize(x)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.learn(name, name, stats=tmp_path / "s.json")


@pytest.mark.parametrize("target", ["torch", "keras", "onnx", "sklearn"])
@pytest.mark.parametrize("method", ["zscore", "center", "minmax", "robust"])
def test_frameworks_round_integers_beyond_2_53(tmp_path, method, target):
    """They subtract from integers that they rounded: no mean helps."""
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", integers("i8")), path, layout=LAYOUT, method=method)
    more = [] if target == "sklearn" else ["--dtype", "float64"]
    output = tmp_path / f"o.{'onnx' if target == 'onnx' else 'json'}"
    ended = call("convert", path, "-o", output, "--to", target, *more)
    assert (ended.code, "beyond 2**53" in ended.err) == (7, True), ended.err


def test_spreads_whose_squares_leave_float64_have_no_layer(tmp_path):
    path = tmp_path / "s.json"
    for scale, method in itertools.product((1e-200, 1e200), METHODS):
        x = np.random.default_rng(1).normal(size=SHAPE) * scale
        normcli.fit(store(tmp_path, "x", x), path, layout=LAYOUT, overwrite=True, **METHODS[method])
        ended = call(
            "convert", path, "-o", tmp_path / "o.npz", "--to", "torch", "--dtype", "float64"
        )
        assert (ended.code, "leaves float64" in ended.err) == (7, True), (method, ended.err)
