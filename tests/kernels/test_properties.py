"""Laws that hold for any block: splitting, undoing, and bits that do not depend on company."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import exact_moments, geometry, group_index, identical, measure

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.transform import Transform
from normcli.kernels.select import kernels
from tests.examples import examples

NAMES = ["numpy", "numba"]


@st.composite
def problems(draw, magnitudes=True):
    """Return a geometry with any kept axes, one of them perhaps divided, and floats."""
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
    dtype = draw(st.sampled_from(["f4", "f8"]))
    values = (random.normal(size=shape) * 10 ** random.uniform(-3, 3) + 50).astype(dtype)
    if magnitudes and draw(st.booleans()):
        # Magnitudes from one end of the type to the other, its subnormal numbers included.
        limits = np.finfo(dtype)
        low, high = limits.minexp - limits.nmant - 2, limits.maxexp - 1
        values = np.ldexp(values, random.integers(low, high, shape) - 14)
    if draw(st.booleans()):
        values[random.random(shape) < 0.2] = np.nan
    order = draw(st.permutations(list(axes)))
    values = values.transpose(order).copy().transpose(np.argsort(order))
    return geometry(shape, kept, scale, divided, size), values


def merged(parts, extents):
    whole = ExactMoments.identity(extents)
    for region, part in parts:
        whole = whole.store(region, whole[region].merge(part))
    return whole


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=examples(150), deadline=None)
@given(problem=problems(), data=st.data())
def test_a_block_cut_anywhere_and_merged_in_any_order_is_the_whole(name, problem, data):
    whole, values = problem
    axis = data.draw(st.integers(0, values.ndim - 1))
    length = values.shape[axis]
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=3))})
    kernel = kernels(name)
    corner = (0,) * values.ndim
    parts = []
    for low, high in itertools.pairwise(cuts):
        box = tuple(
            slice(low, high) if a == axis else slice(0, n) for a, n in enumerate(values.shape)
        )
        start, stop = tuple(s.start for s in box), tuple(s.stop for s in box)
        # Whichever implementation took a part.
        other = kernels(data.draw(st.sampled_from(NAMES)))
        parts.append((whole.region(start, stop), other.measure(values[box], whole, start)))
    got = merged(data.draw(st.permutations(parts)), whole.statistics_shape)
    identical(kernel.finish(got), measure(kernel, values, whole, corner))


@settings(max_examples=examples(150), deadline=None)
@given(problem=problems())
def test_every_implementation_gives_the_truth(problem):
    whole, values = problem
    corner = (0,) * values.ndim
    want = exact_moments(values, whole, corner)
    for name in NAMES:
        identical(measure(kernels(name), values, whole, corner), want)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=examples(100), deadline=None)
@given(problem=problems(magnitudes=False))
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
    kernel = kernels(name)
    corner = [0] * len(shape)
    want = measure(kernel, values, whole, tuple(corner))
    corner[axis] = 2
    box = tuple(slice(c, None) for c in corner)
    same = tuple(slice(2, None) if a == axis else slice(None) for a in kept)
    identical(measure(kernel, values[box], whole, tuple(corner)), want[same])
