"""Where sums in the type of the data fail, and where float64 would if it were used carelessly."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
import pytest
from kernel_cases import geometry, measure

from normcli.kernels.select import kernels

ROWS = "rows"
COLUMNS = "columns"


@pytest.fixture(params=["numpy", "numba"])
def kernel(request):
    return kernels(request.param)


@pytest.fixture(params=[ROWS, COLUMNS])
def one_group(request, kernel):
    """Return a function that measures a vector as one group, along rows or along columns."""

    def moments(vector):
        if request.param == ROWS:
            block, whole = vector, geometry(vector.shape, ())
        else:
            # Another lane beside it, so that the innermost axis is kept.
            block = np.stack([vector, np.zeros_like(vector)], axis=1)
            whole = geometry(block.shape, (1,))
        found = measure(kernel, block, whole, (0,) * block.ndim)
        return found[()] if request.param == ROWS else found[0]

    return moments


def exact(vector):
    """Return mean and sum of squared deviations, correctly rounded but for the last bit."""
    # Sums of float64 by fsum are exact; the mean is split in two parts to be so as well.
    values = [float(x) for x in vector]
    high = math.fsum(values) / len(values)
    low = math.fsum([x - high for x in values]) / len(values)
    return high + low, math.fsum([((x - high) - low) ** 2 for x in values])


HARD = {
    "1e8 + N(0, 1)": lambda r, n: 1e8 + r.normal(size=n),
    "CO2, 420 +- 0.5 ppm": lambda r, n: 420 + 0.5 * r.normal(size=n),
    "salinity, 34.7 +- 0.01": lambda r, n: 34.7 + 0.01 * r.normal(size=n),
    "mixing ratio, 1e-6": lambda r, n: 3e-6 + 1e-8 * r.normal(size=n),
    "first element far out": lambda r, n: np.concatenate([[1e6], r.normal(size=n - 1)]),
    "last element far out": lambda r, n: np.concatenate([r.normal(size=n - 1), [-1e6]]),
    "trend": lambda r, n: 1e5 + np.arange(n) + r.normal(size=n),
    "steps": lambda r, n: 1e3 * (np.arange(n) // 4096) + 1e-3 * r.normal(size=n),
    "alternating": lambda r, n: np.where(np.arange(n) % 2, 1e7, -1e7) + r.normal(size=n),
}


@cache
def hard(name, dtype, count):
    """Return a vector, which each kernel measures in each direction, and its truth."""
    vector = HARD[name](np.random.default_rng(5), count).astype(dtype)
    vector.flags.writeable = False
    return vector, *exact(vector)


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("count", [5, 300, 150011])
def test_moments_agree_with_exact_sums_to_1e_12(one_group, name, dtype, count):
    vector, mean, m2 = hard(name, dtype, count)
    got = one_group(vector)
    assert got.count == count
    # A mean that is the difference of larger numbers is as good as those numbers.
    assert got.mean == pytest.approx(mean, rel=1e-12, abs=1e-13 * math.sqrt(m2 / count))
    assert got.m2 == pytest.approx(m2, rel=1e-12)


def test_moments_agree_with_fifty_digits(one_group):
    vector = (1e8 + np.random.default_rng(6).normal(size=5000)).astype(np.float64)
    with mpmath.workdps(50):
        values = [mpmath.mpf(float(x)) for x in vector]
        mean = mpmath.fsum(values) / len(values)
        m2 = mpmath.fsum((x - mean) ** 2 for x in values)
    got = one_group(vector)
    assert float(got.mean) == pytest.approx(float(mean), rel=1e-15)
    assert float(got.m2) == pytest.approx(float(m2), rel=1e-12)


@pytest.mark.parametrize("value", [0.1, 1e-40, 3e38, -123456.789, 0.0])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("count", [1, 4, 257, 20011])
def test_a_constant_has_its_value_as_mean_and_no_spread_at_all(one_group, value, dtype, count):
    if dtype == "f2" and abs(value) > 65504:
        value = 65504
    vector = np.full(count, value, dtype)
    vector_value = float(vector[0])
    got = one_group(vector)
    assert got.mean == vector_value
    assert got.m2 == 0
    assert got.minimum == got.maximum == vector_value


def test_a_constant_with_gaps_has_no_spread(one_group):
    vector = np.full(20011, 0.1, np.float32)
    vector[::3] = np.nan
    got = one_group(vector)
    assert got.mean == float(np.float32(0.1))
    assert got.m2 == 0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_subnormals_survive(one_group, dtype):
    step = float(np.finfo(dtype).smallest_subnormal)
    vector = (np.arange(1000) % 7 * np.array(step, dtype)).astype(dtype)
    got = one_group(vector)
    mean = float(np.mean(np.arange(1000) % 7))
    assert got.mean == pytest.approx(mean * step, rel=1e-12)
    assert got.minimum == 0
    assert got.maximum == 6 * step
    if dtype != "f8":
        assert got.m2 == pytest.approx(np.var(np.arange(1000) % 7) * 1000 * step**2, rel=1e-12)


def test_float32_near_its_limit(one_group):
    vector = np.array([3e38, -3e38, 3.1e38, 2.9e38] * 1000, np.float32)
    got = one_group(vector)
    wide = vector.astype(np.float64)
    assert got.nonfinite == 0
    assert got.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert got.m2 == pytest.approx(np.square(wide - wide.mean()).sum(), rel=1e-12)


def test_float64_near_its_limit_keeps_its_mean(one_group):
    got = one_group(np.array([1.7e308, 1.6e308, 1.5e308] * 1000))
    assert got.nonfinite == 0
    assert got.count == 3000
    assert got.mean == pytest.approx(1.6e308, rel=1e-12)
    assert got.m2 == np.inf
    opposite = one_group(np.array([1.7e308, -1.7e308] * 1000))
    assert opposite.nonfinite == 0
    assert abs(opposite.mean) < 1e300
    assert opposite.m2 == np.inf


@pytest.mark.parametrize("base", [2**60, -(2**60), 2**63 - 200])
def test_integers_beyond_2_to_the_53_keep_their_mean(one_group, base):
    vector = base + np.random.default_rng(0).integers(0, 200, 5000)
    got = one_group(vector)
    mean = Fraction(sum(int(x) for x in vector), vector.size)
    assert got.mean == pytest.approx(float(mean), rel=1e-15)
    assert got.count == 5000


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_one_group_of_large_integers_has_an_exact_spread(kernel, dtype):
    base = 2**62 if dtype == "i8" else 2**63 + 2**62
    vector = np.array([base + i % 101 for i in range(1010)], dtype)
    got = measure(kernel, vector, geometry(vector.shape, ()), (0,))
    assert got.m2 == pytest.approx(np.var(np.arange(101)) * 1010, rel=1e-12)


def test_every_float16_is_read_exactly(kernel):
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits.view(np.float16).reshape(-1, 1)
    got = measure(kernel, values, geometry(values.shape, (0,)), (0, 0))
    finite = np.isfinite(values[:, 0])
    wide = values[:, 0].astype(np.float64)
    np.testing.assert_array_equal(got.nonfinite, ~finite)
    np.testing.assert_array_equal(got.mean[finite], wide[finite])
    rows = np.broadcast_to(values, (1 << 16, 2)).copy()
    got = measure(kernel, rows, geometry(rows.shape, (0,)), (0, 0))
    np.testing.assert_array_equal(got.mean[finite], wide[finite])
    np.testing.assert_array_equal(got.minimum[finite], wide[finite])
