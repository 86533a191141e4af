"""lp of magnitudes whose powers leave float64: against exact arithmetic, in any cut."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normcli
from normcli.domain.far_powers import some_powers
from normcli.errors import DataPolicyError
from tests.cli.terminal import call
from tests.examples import pairs

from .stores import hold_groups, store
from .test_lp import norms
from .test_properties import MORE, folder

SIZES = {
    "large": [1e300, 1e250, 1e200],
    "small": [1e-200, 5e-324, 1e-120],
    "both": [1e300, 1e-300, 1.0],
    "near the upper end": [1e103, 4e102, 1.0],
    "near the lower end": [1e-97, 3e-98, 1e-180],
}
POWERS = [1.5, 2.25, 3.0, 7.3, 9.0, 100.0, 999.5]


def exact_norm(values: list[float], p: float) -> float:
    """Return the norm by powers of quotients, each right to a rounding or two, summed exactly."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return 0.0
    most = max(sizes)
    if p == int(p) and p < 10:
        # Rational numbers alone, but for the last root.
        total = sum((Fraction(size) / Fraction(most)) ** int(p) for size in sizes)
        root = float(total) ** (1 / p)
    else:
        root = math.fsum(float(Fraction(size) / Fraction(most)) ** p for size in sizes) ** (1 / p)
    # In two steps: the norm may be subnormal, and its half is not rounded twice.
    return float(Fraction(root) * Fraction(most))


def assert_norms(found: np.ndarray, values: list[list[float]], p: float) -> None:
    for norm, group in zip(found, values, strict=True):
        want = exact_norm(group, p)
        with np.errstate(all="ignore"):
            most = float(np.float64(max(map(abs, group))) ** p)
        # Of powers that fit, the root is taken at once, with the error of 1 / p.
        bound = 4e-14 if 1e-290 <= most < np.inf else 4e-15
        assert abs(norm - want) <= bound * want + 5e-324, (norm / want - 1, p)


def data(kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (12, 5, 40)) * rng.choice(SIZES[kind], (12, 5, 40))
    x[:, 1] = 0
    x[:, 2] = rng.normal(size=(12, 40))  # an ordinary channel beside the others
    return x


@pytest.mark.parametrize(("kind", "p"), pairs(SIZES, POWERS))
def test_norms_in_any_cut(tmp_path, kind, p):
    x = data(kind)
    options = {"layout": "NCS", "method": "lp", "p": p}
    one = norms(normcli.fit(store(tmp_path, "x", x), **options))
    assert_norms(one, [x[:, channel].ravel().tolist() for channel in range(5)], p)
    for number, chunks in enumerate([(1, 5, 7), (5, 1, 40), (12, 2, 3)]):
        cut = store(tmp_path, f"cut{number}", x, "zarr3", chunks)
        found = normcli.fit(cut, workers=1 + number, memory="40MiB", **options)
        np.testing.assert_array_equal(norms(found), one)
    np.testing.assert_array_equal(norms(normcli.fit(store(tmp_path, "r", x[::-1]), **options)), one)
    # An ordinary channel has the bits that it has without the others.
    alone = normcli.fit(store(tmp_path, "alone", x[:, 2:3]), **options)
    np.testing.assert_array_equal(norms(alone)[0], one[2])


@given(
    # The norm of 40 of the largest is within float64.
    st.lists(st.floats(-4e306, 4e306), min_size=1, max_size=40),
    st.floats(1.001, 1000),
    st.integers(0, 40),
)
@MORE
def test_any_values_and_any_power(values, p, cut):
    with folder() as place:
        options = {"layout": "NC", "method": "lp", "p": p}
        fitted = normcli.fit(store(place, "x", np.array([values]).T), **options)
        assert_norms(norms(fitted), [values], p)
        mixed = np.array([values[cut:] + values[:cut]]).T
        again = normcli.fit(store(place, "y", mixed, "zarr3", (3, 1)), **options)
        np.testing.assert_array_equal(norms(again), norms(fitted))


@pytest.mark.parametrize(
    ("kind", "mode"), pairs(["large", "small", "both"], ["batch", "instance", "layer"])
)
def test_apply_and_back(tmp_path, kind, mode):
    p = 100.0 if kind == "both" else 3.0
    x = data(kind)
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    more = {"aggregate": "S"} if mode == "layer" else {}
    options = {"layout": "NCS", "method": "lp", "p": p, "mode": mode, **more}
    normcli.apply(name, output, **options)
    y = np.load(output)
    axes = (0, 2) if mode == "batch" else (2,)
    want = np.empty_like(x)
    for place in np.ndindex(*(x.shape[axis] for axis in range(3) if axis not in axes)):
        index = (slice(None), place[0]) if mode == "batch" else place
        norm = Fraction(exact_norm(x[index].ravel().tolist(), p))
        values = [float(Fraction(v) / norm) if norm else 0.0 for v in x[index].ravel().tolist()]
        want[index] = np.reshape(values, x[index].shape)
    np.testing.assert_allclose(y, want, rtol=5e-14, atol=5e-324)
    for kind_of_file in ("json", "npz", "h5", "zarr", "safetensors"):
        path = tmp_path / f"s.{kind_of_file}"
        normcli.fit(name, path, **options)
        normcli.apply(name, tmp_path / "z.npy", stats=path, overwrite=True)
        np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), y)
    normcli.apply(output, tmp_path / "b.npy", stats=f"{output}.stats.json", inverse=True)
    size = np.abs(x).max(axes, keepdims=True)
    # Where a quotient is subnormal, what it lost is that of the largest element.
    assert np.all(np.abs(np.load(tmp_path / "b.npy") - x) <= 1e-14 * np.abs(x) + size * 5e-324)
    for path in (output, tmp_path / "s.json"):
        assert call("verify", str(path)).code == 0


@pytest.mark.parametrize(("kind", "p"), [("large", 3.0), ("small", 9.0), ("both", 100.0)])
def test_parts_updates_and_blocks(tmp_path, monkeypatch, kind, p):
    x = data(kind)
    options = {"layout": "NCS", "method": "lp", "p": p}
    name = store(tmp_path, "x", x, "zarr3", (2, 2, 9))
    one = norms(normcli.fit(name, **options))
    parts = [tmp_path / f"part{i}.npz" for i in (1, 2, 3)]
    for i, path in enumerate(parts, 1):
        normcli.fit(name, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in reversed(parts)])
    normcli.fit(store(tmp_path, "a", x[:5]), tmp_path / "a.npz", **options)
    more = normcli.fit(store(tmp_path, "b", x[5:]), update=tmp_path / "a.npz")
    for other in (merged, more):
        # Norms are rounded before they are merged.
        np.testing.assert_allclose(norms(other), one, rtol=2e-15)
    hold_groups(monkeypatch, 30)
    options["mode"] = "instance"
    normcli.apply(name, tmp_path / "y.npy", stats_out=tmp_path / "y.zarr", **options)
    normcli.fit(name, tmp_path / "s.zarr", **options)
    normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / "s.zarr")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    first = normcli.read_statistics(tmp_path / "s.zarr")
    assert_norms(norms(first)[0], x[0].tolist(), p)


@pytest.mark.parametrize("dtype", ["i8", "u8", "f4"])
def test_other_types(tmp_path, dtype):
    rng = np.random.default_rng(2)
    if dtype == "f4":
        x = (rng.uniform(-1, 1, (50, 3)) * [1e38, 1e-40, 1]).astype("f4")
    else:
        x = rng.integers(0, np.iinfo(dtype).max, (50, 3), dtype)
    fitted = normcli.fit(store(tmp_path, "x", x), layout="NC", method="lp", p=50)
    assert_norms(norms(fitted), x.T.astype("f8").tolist(), 50)


def test_what_is_not_finite_is_left_out(tmp_path):
    x = data("large")
    x[0, 0, :3] = np.nan, np.inf, -np.inf
    fitted = normcli.fit(store(tmp_path, "x", x), layout="NCS", method="lp", p=3, nonfinite="omit")
    want = [exact_norm(x[:, c].ravel().tolist(), 3) for c in range(5)]
    np.testing.assert_allclose(norms(fitted), want, rtol=4e-14)
    assert fitted.count[0] == 12 * 40 - 3


def test_what_leaves_float64_itself(tmp_path):
    options = {"layout": "NC", "method": "lp"}
    x = store(tmp_path, "x", np.full((1000, 2), 1e308))
    with pytest.raises(DataPolicyError, match="norms leave float64"):
        normcli.fit(x, p=1.5, **options)
    assert norms(normcli.fit(x, p=50, **options))[0] == pytest.approx(1e308 * 1000 ** (1 / 50))
    with pytest.raises(DataPolicyError, match="powers of 2000"):
        normcli.fit(x, p=2000, **options)


@given(
    st.integers(1, 2**53 - 1), st.integers(-1074, 971), st.integers(1, 1000), st.integers(0, 2**40)
)
@MORE
def test_powers_of_any_exponent(digits, exponent, whole, part):
    p = min(whole + part / 2**41, 1000.0)
    try:
        x = math.ldexp(digits, exponent)
    except OverflowError:
        return
    if not 0 < x < math.inf:
        return
    (mantissa,), (power,) = some_powers(np.array([x]), p)
    # By logarithms of 60 digits.
    with localcontext() as context:
        context.prec = 60
        want = Decimal(p) * Decimal(x).ln() / Decimal(2).ln()
        found = Decimal(float(mantissa)).ln() / Decimal(2).ln() + int(power)
        assert abs(found - want) < Decimal(2) ** -50
