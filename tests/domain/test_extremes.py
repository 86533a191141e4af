"""Tables of minmax and maxabs: bounds to the last bit, the way back, and what has no spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.domain.affine import Affine
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.normalizers import normalizer_of
from normcli.domain.presets import make_spec
from normcli.domain.transform import backward, extreme_normalizer, forward

from .test_transform import run

FLOATS = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) > 1e-100)
VALUES = st.lists(FLOATS, min_size=2, max_size=20).map(np.array)
BOUNDS = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)).map(lambda p: (p[0], p[0] + p[1]))


def spec_of(method, bounds=None):
    return make_spec(Layout("NC"), np.dtype("f8"), method=method, value_range=bounds)


def moments_of(x: np.ndarray) -> Moments:
    """One group, by numpy."""
    mean = x.mean(keepdims=True)
    m2 = ((x - mean) ** 2).sum(keepdims=True)
    count, none = np.array([x.size]), np.array([0])
    return Moments(count, mean, m2, x.min(keepdims=True), x.max(keepdims=True), none)


@given(VALUES, BOUNDS)
def test_a_minimum_is_the_lower_bound_and_a_maximum_the_upper(x, bounds):
    table = normalizer_of(moments_of(x), spec_of("minmax", bounds), x.dtype)
    affine = Affine().after(bounds[0], ())
    y = run(forward(table, affine), x)
    assert y[x.argmin()] == bounds[0]
    ulp = np.spacing(max(map(abs, bounds)))
    if table.divisor[0]:
        assert abs(y[x.argmax()] - bounds[1]) <= 4 * ulp
        assert y.min() >= bounds[0]
        low, high = x.min(), x.max()
        want = (x - low) / (high - low) * (bounds[1] - bounds[0]) + bounds[0]
        np.testing.assert_allclose(y, want, rtol=0, atol=4 * ulp)
    back = run(backward(table, affine), y)
    stretch = 1 + max(map(abs, bounds)) / (bounds[1] - bounds[0])
    np.testing.assert_allclose(back, x, rtol=0, atol=2e-15 * stretch * abs(x).max())


@given(VALUES)
def test_the_largest_magnitude_is_one(x):
    table = normalizer_of(moments_of(x), spec_of("maxabs"), x.dtype)
    y = run(forward(table, Affine()), x)
    most = abs(x).max()
    np.testing.assert_allclose(y, x / most if most else x * 0, rtol=1e-15)
    # d * fl(1/d) is 1 or the number below it, never above.
    assert abs(y).max() <= 1
    np.testing.assert_allclose(run(backward(table, Affine()), y), x, rtol=1e-15)


@pytest.mark.parametrize("scale", [None, np.array([2.0, -3.0])])
@pytest.mark.parametrize("bias", [None, np.array([0.5, 7.0])])
def test_an_offset_comes_before_scale_and_bias(scale, bias):
    z = np.array([0.25, 0.75])
    affine = Affine(scale, bias).after(-1.0, (2,))
    want = (z - 1) * (1 if scale is None else scale) + (0 if bias is None else bias)
    got = (z if affine.scale is None else z * affine.scale) + affine.bias
    np.testing.assert_array_equal(got, want)
    same = Affine(scale, bias).after(0.0, (2,))
    assert same.scale is scale
    assert same.bias is bias


def test_groups_without_spread_or_values():
    low = np.array([3.0, 0.0, np.nan, -4.0])
    mean, constant = low.copy(), np.array([True, True, False, True])
    x = np.array([[3.0, 0.0, 5.0, -4.0], [np.nan, np.inf, np.nan, -np.inf]])
    table = extreme_normalizer(spec_of("minmax", (2, 3)), mean, low, low, constant)
    affine = Affine().after(2.0, ())
    with np.errstate(invalid="ignore"):
        y = run(forward(table, affine), x)
        np.testing.assert_array_equal(y[0], [2, 2, np.nan, 2])
        assert np.isnan(y[1]).all()
        np.testing.assert_array_equal(run(backward(table, affine), y)[0], [3, 0, np.nan, -4])
        table = extreme_normalizer(spec_of("maxabs"), mean, low, low, constant)
        y = run(forward(table, Affine()), x)
        np.testing.assert_allclose(y[0], [1, 0, np.nan, -1], rtol=1e-15)
        np.testing.assert_allclose(run(backward(table, Affine()), y)[0], [3, 0, np.nan, -4])
