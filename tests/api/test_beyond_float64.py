"""Integers beyond 2**53, and magnitudes whose squares leave float64, against exact arithmetic."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

import normcli
from normcli.domain.integer_origins import added, difference, origins
from normcli.errors import DataPolicyError, InputError
from normcli.kernels import select
from tests.cli.terminal import call
from tests.examples import pairs

from .stores import hold_groups, store
from .wide_cases import (
    INTEGERS,
    LAYOUT,
    MODES,
    SHAPE,
    exactly,
    floats,
    groups,
    integers,
    random,
    root,
)


@pytest.fixture(params=["numpy", "numba"])
def kernel(request, monkeypatch):
    if request.param == "numba":
        pytest.importorskip("numba")
        monkeypatch.setattr(select, "SMALL", 0)
    return request.param


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        # By turns: each type and each mode is in the fast cut.
        pytest.param(dtype, mode, marks=[] if (i + j) % 2 == 0 else [pytest.mark.slow])
        for i, dtype in enumerate(INTEGERS)
        for j, mode in enumerate(MODES)
    ],
)
def test_integers_beyond_2_53(tmp_path, kernel, dtype, mode):
    # A group of both ends spans 65 bits.
    x = integers(dtype, wide=mode == "batch")
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {"layout": LAYOUT, "epsilon": 0.0, **MODES[mode][0]}
    report = normcli.apply(name, output, **options)
    assert report.kernel == kernel
    y = np.load(output)
    np.testing.assert_allclose(y, exactly(x, mode), rtol=1e-14, atol=1e-14)
    for kind in ("json", "npz", "zarr", "h5", "safetensors"):
        fitted = normcli.fit(name, tmp_path / f"s.{kind}", **options)
        normcli.apply(name, tmp_path / f"{kind}.npy", stats=tmp_path / f"s.{kind}")
        np.testing.assert_array_equal(np.load(tmp_path / f"{kind}.npy"), y)
        np.testing.assert_array_equal(fitted.normalize(x), y)
    normcli.apply(
        output, tmp_path / "b.npy", stats=f"{output}.stats.json", inverse=True, dtype=dtype
    )
    back = np.load(tmp_path / "b.npy")
    flat, undone = x.reshape(-1).tolist(), back.reshape(-1).tolist()
    for places in groups(x, mode):
        spread = max(flat[i] for i in places) - min(flat[i] for i in places)
        bound = 1e-15 * spread if spread > 10**14 else 0
        assert max(abs(flat[i] - undone[i]) for i in places) <= bound


@pytest.mark.parametrize(
    ("method", "epsilon"), pairs(["zscore", "rms", "std"], [0.0, 1e-5, 1e-290])
)
@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_squares_that_leave_float64(tmp_path, kernel, mode, method, epsilon):
    x = floats()
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {"layout": LAYOUT, "epsilon": epsilon, "method": method, **MODES[mode][0]}
    normcli.apply(name, output, **options)
    y, want = np.load(output), exactly(x, mode, method, epsilon)
    # Each channel by its own size, which epsilon may make as small as the data.
    size = np.abs(want).max((0, 2), keepdims=True)
    assert np.all(np.abs(y - want) <= 2e-15 * size + 5e-324)
    for kind in ("json", "zarr"):
        normcli.fit(name, tmp_path / f"s.{kind}", **options)
        normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / f"s.{kind}", overwrite=True)
        np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), y)
    if epsilon == 0:
        normcli.apply(output, tmp_path / "b.npy", stats=f"{output}.stats.json", inverse=True)
        back = np.load(tmp_path / "b.npy")
        assert np.all(np.abs(back / 2 - x / 2) <= 2e-15 * np.abs(x / 2).max((0, 2), keepdims=True))


@pytest.mark.parametrize("method", ["minmax", "maxabs", "center"])
def test_extremes_whose_spread_leaves_float64(tmp_path, method):
    x = floats()
    if method == "center":
        x[:, 3] /= 2
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", layout=LAYOUT, method=method)
    y = np.load(tmp_path / "y.npy")
    for channel in range(4):
        values = [Fraction(v) for v in x[:, channel].ravel().tolist()]
        low, high = min(values), max(values)
        center, divisor = {
            "minmax": (low, high - low),
            "maxabs": (0, max(-low, high)),
            "center": (sum(values) / len(values), 1),
        }[method]
        want = np.array([float((v - center) / divisor) for v in values])
        bound = 2e-15 * np.abs(want).max() + (5e-324 if method == "center" else 0)
        assert np.all(np.abs(y[:, channel].ravel() - want) <= bound)


@pytest.mark.parametrize(
    "make", [lambda: integers("i8", wide=True), floats], ids=["ints", "floats"]
)
def test_any_cut_gives_the_same_bits(tmp_path, make):
    x = make()
    options = {"layout": LAYOUT, "epsilon": 0.0}
    whole = store(tmp_path, "x", x)
    one = normcli.fit(whole, tmp_path / "one.npz", **options)
    normcli.apply(whole, tmp_path / "y.npy", workers=1, **options)
    y = (tmp_path / "y.npy").read_bytes()
    for number, (chunks, workers) in enumerate([((1, 4, 7), 3), ((5, 1, 30), 2)]):
        cut = store(tmp_path, f"cut{number}", x, "zarr3", chunks)
        output = tmp_path / f"{number}.npy"
        normcli.apply(cut, output, workers=workers, memory="90MiB", **options)
        assert output.read_bytes() == y
    # Parts, and halves one after the other, add up to the same.
    parts = [tmp_path / f"part{i}.npz" for i in (1, 2, 3)]
    for i, path in enumerate(parts, 1):
        normcli.fit(whole, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in parts])
    normcli.fit(store(tmp_path, "a", x[:5]), tmp_path / "a.json", **options)
    continued = normcli.fit(store(tmp_path, "b", x[5:]), update=tmp_path / "a.json", epsilon=0.0)
    for other in (merged, continued, normcli.read_statistics(tmp_path / "one.npz")):
        moments, own = other.statistics.moments, one.statistics.moments
        assert type(moments) is type(own)
        for name in own.names():
            np.testing.assert_array_equal(getattr(moments, name), getattr(own, name))
    for path in ("y.npy", "one.npz"):
        assert call("verify", str(tmp_path / path)).code == 0


def test_statistics_of_observations_are_set_side_by_side(tmp_path):
    x = integers("i8")
    x[:6] %= 1000  # The first half has nothing beyond 2**53.
    options = {"layout": LAYOUT, "mode": "instance", "epsilon": 0.0}
    for i, half in enumerate((x[:6], x[6:])):
        normcli.fit(store(tmp_path, f"x{i}", half), tmp_path / f"{i}.json", **options)
    normcli.merge([str(tmp_path / f"{i}.json") for i in (0, 1)], tmp_path / "both.json")
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", stats=tmp_path / "both.json")
    want = exactly(x, "instance")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-14, atol=1e-14)


def test_more_groups_than_memory_holds(tmp_path, monkeypatch):
    hold_groups(monkeypatch, 30)
    x = integers("i8")
    name, options = store(tmp_path, "x", x), {"layout": LAYOUT, "mode": "instance", "epsilon": 0.0}
    normcli.apply(name, tmp_path / "y.npy", stats_out=tmp_path / "y.zarr", **options)
    want = exactly(x, "instance")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-14, atol=1e-14)
    normcli.fit(name, tmp_path / "s.zarr", **options)
    normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / "s.zarr")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    assert call("check", str(tmp_path / "s.zarr"), name).code == 0
    # Stored by block, squares have no units.
    far = store(tmp_path, "far", floats())
    with pytest.raises(DataPolicyError, match="float64"):
        normcli.fit(far, tmp_path / "far.zarr", **options)


def test_sidecars_of_earlier_versions(tmp_path):
    x = integers("i8")
    name = store(tmp_path, "x", x)
    path = tmp_path / "s.json"
    normcli.fit(name, path, layout=LAYOUT, epsilon=0.0)
    normcli.apply(name, tmp_path / "y.npy", stats=path)
    document = json.loads(path.read_text())
    assert document["schema_version"] == 1
    del document["arrays"]["mean_rest"]
    path.write_text(json.dumps(document))
    # The exact sums say it again.
    normcli.apply(name, tmp_path / "z.npy", stats=path)
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    for lost in ("exponent", "total", "squares"):
        del document["arrays"][lost]
    path.write_text(json.dumps(document))
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "z.npy", stats=path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "value", "with_sums"),
    [("mean_rest", 1e4, False), ("mean_rest", 0.5, True), ("m2_scaled", 1e6, False),
     ("m2_exponent", 5000, False)],
)  # fmt: skip
def test_rests_that_belong_to_other_moments(tmp_path, name, value, with_sums):
    path = tmp_path / "s.json"
    x = integers("i8") if name == "mean_rest" else floats()
    normcli.fit(store(tmp_path, "x", x), path, layout=LAYOUT)
    document = json.loads(path.read_text())
    document["arrays"][name]["data"][0] = value
    if not with_sums:
        for lost in ("exponent", "total", "squares"):
            del document["arrays"][lost]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=name):
        normcli.read_statistics(path)


def test_quantiles_by_sketches_are_refused_at_the_ends_alone(tmp_path):
    pytest.importorskip("datasketches")
    # In chunks the groups are put together by sketches, which do not tell the outermost apart.
    name = store(tmp_path, "x", integers("i8"), "zarr3", (3, 4, 30))
    normcli.fit(name, tmp_path / "s.json", layout=LAYOUT, method="robust")
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json")
    assert not (tmp_path / "y.npy").exists()
    inside = store(tmp_path, "inside", integers("i8") // 2)
    normcli.fit(inside, tmp_path / "i.json", layout=LAYOUT, method="robust")
    normcli.apply(inside, tmp_path / "y.npy", stats=tmp_path / "i.json")
    low, center, high = np.quantile(np.load(tmp_path / "y.npy"), [0.25, 0.5, 0.75], axis=(0, 2))
    np.testing.assert_allclose(center, 0, atol=1e-15)
    np.testing.assert_allclose(high - low, 1, rtol=1e-15)


def test_what_does_not_fit_is_said(tmp_path):
    x, path = floats(), str(tmp_path / "s.json")
    fitted = normcli.fit(store(tmp_path, "x", x), path, layout=LAYOUT, epsilon=0.0)
    ended = call("extract", path, "variance")
    assert (ended.code, "leaves float64" in ended.err) == (7, 1)
    ended = call("extract", path, "std")
    assert ended.code == 0
    told = np.array([float(line) for line in ended.out.split()])
    np.testing.assert_array_equal(told, fitted.std)
    for channel in range(1, 4):
        values = [Fraction(v) for v in x[:, channel].ravel().tolist()]
        mean = sum(values) / len(values)
        want = float(root(sum((v - mean) ** 2 for v in values) / len(values)))
        assert abs(told[channel] / want - 1) < 1e-12
    assert b"beyond float64" in call("inspect", path).out
    ended = call("convert", path, "-o", str(tmp_path / "t.safetensors"), "--to", "torch")
    assert (ended.code, "leaves float64" in ended.err) == (7, 1)
    # Nobody chose the default epsilon, which would flatten the small ones.
    normcli.fit(tmp_path / "x.npy", tmp_path / "d.json", layout=LAYOUT)
    with pytest.raises(DataPolicyError, match="epsilon"):
        normcli.apply(tmp_path / "x.npy", tmp_path / "y.npy", stats=tmp_path / "d.json")


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_origins_are_exact(dtype):
    limits = np.iinfo(dtype)
    ends = np.array([limits.min, limits.max, limits.min + 1, limits.max - 1, 0, 1], dtype)
    x = np.concatenate([random.integers(limits.min, limits.max, 500, dtype, True), ends])
    origin = random.permutation(x)
    want = [float(int(a) - int(b)) for a, b in zip(x, origin, strict=True)]
    np.testing.assert_array_equal(difference(x, origin), want)
    delta = np.ldexp(random.normal(size=x.size), random.integers(0, 67, x.size))
    delta[:5] = np.inf, -np.inf, 2.0**64, -(2.0**64), np.nan
    for a, b, got in zip(
        origin.tolist(), delta.tolist(), added(origin, delta).tolist(), strict=True
    ):
        if np.isfinite(b):
            assert got == min(max(a + round(b), limits.min), limits.max)
        else:
            assert got == (0 if np.isnan(b) else limits.max if b > 0 else limits.min)
    center = np.array([1.7e18, 2.0**63, -5.0, 0.3])
    rest = np.array([100.25, -7.5, 0.25, 0.0])
    near, left = origins(center, rest, np.dtype(dtype))
    for a, b, c, d in zip(center, rest, near, left, strict=True):
        assert Fraction(float(a)) + Fraction(float(b)) == int(c) + Fraction(float(d))


def test_small_integers_keep_their_bits(tmp_path):
    x = random.integers(-(2**40), 2**40, SHAPE)
    name = store(tmp_path, "x", x)
    normcli.apply(name, tmp_path / "y.npy", layout=LAYOUT, epsilon=0.0)
    y = np.load(tmp_path / "y.npy")
    store(tmp_path, "f", x.astype("f8"))
    normcli.apply(tmp_path / "f.npy", tmp_path / "z.npy", layout=LAYOUT, epsilon=0.0)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), y)
    assert "mean_rest" not in json.loads((tmp_path / "y.npy.stats.json").read_text())["arrays"]
