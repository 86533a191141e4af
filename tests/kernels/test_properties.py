"""Laws that hold for any block: splitting, undoing, and bits that do not depend on company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import geometry, group_index

from normcli.domain.moments import Moments
from normcli.domain.transform import Transform
from normcli.kernels.select import kernels

NAMES = ["numpy", "numba"]


@st.composite
def problems(draw):
    """Return a geometry with any kept axes, one of them perhaps divided, and float32 data."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=5)))
    axes = range(len(shape))
    kept = tuple(axis for axis in axes if draw(st.booleans()))
    scale = tuple(axis for axis in axes if draw(st.booleans()))
    divided, size = None, 1
    if kept and draw(st.booleans()):
        divided = draw(st.sampled_from(kept))
        size = draw(st.integers(1, shape[divided]))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    values = (random.normal(size=shape) * 10 ** random.uniform(-3, 3) + 50).astype(np.float32)
    if draw(st.booleans()):
        values[random.random(shape) < 0.2] = np.nan
    order = draw(st.permutations(list(axes)))
    values = values.transpose(order).copy().transpose(np.argsort(order))
    return geometry(shape, kept, scale, divided, size), values


def assert_means_agree(one, other):
    # A mean that is the difference of larger numbers is as good as those numbers.
    size = np.maximum(np.abs(one.mean), np.sqrt(one.m2 / np.maximum(one.count, 1)))
    assert (np.abs(one.mean - other.mean) <= 1e-13 * size).all()


def merged(parts, extents):
    whole = Moments.identity(extents)
    for region, part in parts:
        whole.store(region, whole[region].merge(part))
    return whole


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(problem=problems(), data=st.data())
def test_a_block_split_anywhere_and_merged_is_the_whole(name, problem, data):
    whole, values = problem
    axis = data.draw(st.integers(0, values.ndim - 1))
    at = data.draw(st.integers(0, values.shape[axis]))
    measure = kernels(name).measure
    corner = (0,) * values.ndim
    want = measure(values, whole, corner)
    parts = []
    for low, high in ((0, at), (at, values.shape[axis])):
        if low < high:
            box = tuple(
                slice(low, high) if a == axis else slice(0, n) for a, n in enumerate(values.shape)
            )
            start, stop = tuple(s.start for s in box), tuple(s.stop for s in box)
            part = measure(values[box], whole, start)
            parts.append((whole.region(start, stop), part))
    got = merged(parts, whole.statistics_shape)
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_array_equal(got.nonfinite, want.nonfinite)
    np.testing.assert_array_equal(got.minimum, want.minimum)
    np.testing.assert_array_equal(got.maximum, want.maximum)
    # Between blocks means are plain float64: each is off by up to half a unit in the last place, d,
    # and merging two of them moves m2 by up to 2 d sqrt(m2 n) and n d**2.
    rounding = np.finfo(float).eps * np.abs(want.mean)
    allowed = 1e-12 * want.m2 + rounding * (
        2 * np.sqrt(want.m2 * want.count) + rounding * want.count
    )
    assert (np.abs(got.m2 - want.m2) <= allowed).all()
    assert_means_agree(got, want)


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_both_implementations_agree(problem):
    whole, values = problem
    corner = (0,) * values.ndim
    one, other = (kernels(name).measure(values, whole, corner) for name in NAMES)
    np.testing.assert_array_equal(one.count, other.count)
    np.testing.assert_array_equal(one.minimum, other.minimum)
    np.testing.assert_array_equal(one.maximum, other.maximum)
    np.testing.assert_allclose(one.m2, other.m2, rtol=1e-12)
    assert_means_agree(one, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_the_inverse_returns_the_data(name, dtype, problem):
    whole, values = problem
    values = np.nan_to_num(values).astype(dtype)
    corner = (0,) * values.ndim
    random = np.random.default_rng(0)
    extents = group_index(whole, corner, values.shape)[1]
    center = random.normal(size=extents) + 50
    factor = random.uniform(0.5, 2, extents)
    scale = random.uniform(0.5, 2, whole.scale_shape)
    bias = random.normal(size=whole.scale_shape)
    transform = kernels(name).transform
    kind = np.dtype(dtype)
    there = transform(values, Transform(center, factor, scale, bias), whole, corner, kind)
    undo = Transform(bias, 1 / scale, 1 / factor, center, inverse=True)
    back = transform(there, undo, whole, corner, kind)
    # An ulp of the largest value on the way, a few times.
    size = max(100.0, float(np.abs(values).max()))
    np.testing.assert_allclose(back, values, rtol=0, atol=16 * np.finfo(dtype).eps * size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "kept", "axis"),
    [
        ((6, 4, 5000), (0, 1), 0),
        ((6, 4, 5000), (0, 1), 1),
        ((6, 5000, 40), (0, 2), 0),
        ((6, 9000, 3), (0, 2), 0),
        ((700, 100), (0,), 0),
        ((700, 3000), (1,), 1),
        ((3000, 30, 7), (1,), 1),
    ],
    ids=str,
)
def test_the_bits_of_a_group_do_not_depend_on_how_many_a_block_holds(name, shape, kept, axis):
    random = np.random.default_rng(2)
    values = (random.normal(size=shape) + 7).astype(np.float32)
    values[random.random(shape) < 0.001] = np.nan
    whole = geometry(shape, kept)
    measure = kernels(name).measure
    corner = [0] * len(shape)
    want = measure(values, whole, tuple(corner))
    # Where lanes are few, or the kept axis is alone, their number sets the order of summation; no
    # case here goes below 64 lanes, or changes their number.
    corner[axis] = 2
    box = tuple(slice(c, None) for c in corner)
    part = measure(values[box], whole, tuple(corner))
    same = tuple(slice(2, None) if a == axis else slice(None) for a in kept)
    for field in ("count", "mean", "m2", "minimum", "maximum", "nonfinite"):
        np.testing.assert_array_equal(getattr(part, field), getattr(want[same], field))


@pytest.mark.parametrize("name", NAMES)
def test_moments_have_the_same_bits_every_time(name):
    values = np.random.default_rng(0).normal(size=(50, 30, 41)).astype(np.float32)
    whole = geometry(values.shape, (1,))
    one, other = (kernels(name).measure(values, whole, (0, 0, 0)) for _ in range(2))
    np.testing.assert_array_equal(one.m2, other.m2)
    np.testing.assert_array_equal(one.mean, other.mean)
