"""Equal sums are equal bits, whatever was merged in whatever order."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.domain import limbs
from normcli.domain.dtypes import bfloat16
from normcli.domain.exact_moments import EXPONENTS, ExactMoments, most_limbs
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.presets import make_spec
from normcli.domain.statistics import EXACT_GROUPS, added, keeps_exact
from normcli.kernels.select import kernels
from tests.engine.test_merging import bind_last
from tests.examples import examples

measure = kernels("numpy").measure


def sums_of(values: np.ndarray) -> ExactMoments:
    """Return the sums along the last axis."""
    return measure(values, bind_last(values.shape), (0,) * values.ndim).reshape(values.shape[:-1])


def bits(value: ExactMoments | Moments) -> list[tuple[str, tuple[int, ...], bytes]]:
    arrays = ((f.name, np.asarray(getattr(value, f.name))) for f in fields(value))
    return [(name, array.shape, array.tobytes()) for name, array in arrays]


@given(
    st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3), min_size=1),
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
)
def test_shortest_limbs_hold_the_same_integers(rows, zeros):
    given_limbs = np.array(rows, np.int64)
    short = limbs.shortest(given_limbs.copy())
    assert limbs.to_integers(short) == limbs.to_integers(given_limbs)
    assert limbs.is_shortest(short)
    # One limb fewer would not hold the largest.
    size = short.shape[-1]
    largest = max(x if x >= 0 else ~x for x in limbs.to_integers(short))
    assert size == 1 or largest >= 1 << (32 * (size - 1) - 1)
    steps = np.resize(np.array(zeros), len(rows))
    raised = limbs.shortest(limbs.moved(short, steps))
    assert np.all(limbs.zeros_below(raised) >= steps)
    assert limbs.to_integers(limbs.lowered(raised, steps)) == limbs.to_integers(short)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "f2"])
@given(st.data())
@settings(deadline=None, max_examples=examples(40))
def test_any_cut_and_order_gives_the_same_canonical_sums(dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = data.draw(st.sampled_from([(24,), (3, 24), (2, 2, 24)]))
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] * np.dtype(dtype).itemsize), np.uint8)
    values = raw.view(dtype)  # Every bit pattern: all magnitudes, NaN and infinities.
    if data.draw(st.booleans()):
        values[..., :] = -values if np.dtype(dtype).kind == "f" else values
        values[0] = 0
    cuts = sorted(data.draw(st.sets(st.integers(1, 23), max_size=6)))
    parts = [sums_of(part) for part in np.split(values, cuts, axis=-1)]
    whole = sums_of(values).canonical()
    order = data.draw(st.permutations(range(len(parts))))
    merged = reduce(ExactMoments.merge, (parts[i] for i in order)).canonical()
    early = reduce(ExactMoments.merge, (parts[i].canonical() for i in order)).canonical()
    assert bits(merged) == bits(whole) == bits(early) == bits(whole.canonical())
    assert bits(merged.finish()) == bits(sums_of(values).finish())
    moments, exact = added([(parts[i].finish(), parts[i].canonical()) for i in order])
    assert exact is not None
    assert (bits(moments), bits(exact)) == (bits(whole.finish()), bits(whole))


TYPES = [*map(np.dtype, ("f2", "f4", "f8", "i1", "u1", "i4", "u4", "i8", "u8", "?")), bfloat16()]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_no_sums_have_more_limbs_than_declared(dtype):
    if dtype.kind == "b":
        extremes = np.array([False, True])
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        extremes = np.array([info.min or info.max, 1], dtype)
    else:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        largest = {"float16": 0x7BFF, "bfloat16": 0x7F7F, "float32": 0x7F7FFFFF}.get(
            dtype.name, 0x7FEFFFFFFFFFFFFF
        )
        extremes = np.array([1, largest, largest - 1], unsigned).view(dtype)
    sums = sums_of(extremes).canonical()
    # The most elements that a count can tell.
    most = (2**63 - 1) // extremes.size
    many = replace(
        sums,
        total=_times(sums.total, most),
        squares=_times(sums.squares, most),
    ).canonical()
    total, squares = most_limbs(dtype)
    assert total - 1 <= many.total.shape[-1] <= total
    assert squares - 1 <= many.squares.shape[-1] <= squares
    assert EXPONENTS[0] <= int(many.exponent) <= EXPONENTS[1]


def _times(value: np.ndarray, factor: int) -> np.ndarray:
    (number,) = limbs.to_integers(value)
    number *= factor
    size = value.shape[-1] + 3
    found = [number >> (32 * i) & limbs.MASK for i in range(size)]
    return np.array([*found, number >> (32 * size)], np.int64)


def test_the_largest_unit_is_allowed():
    values = np.full(2, 2.0**1023)
    sums = sums_of(values).canonical()
    assert EXPONENTS[0] <= int(sums.exponent) <= EXPONENTS[1]
    smallest = sums_of(np.array([5e-324])).canonical()
    assert int(smallest.exponent) == EXPONENTS[0]


def test_one_side_without_sums_leaves_none():
    rng = np.random.default_rng(8)
    a, b = (sums_of(rng.normal(5, 1, (3, 50))) for _ in range(2))
    whole = a.merge(b).finish()
    for sides in (
        [(a.finish(), None), (b.finish(), b)],
        [(a.finish(), a), (b.finish(), None)],
        [(a.finish(), None), (b.finish(), None)],
    ):
        moments, exact = added(sides)
        assert exact is None
        np.testing.assert_array_equal(moments.count, whole.count)
        np.testing.assert_allclose(moments.mean, whole.mean, rtol=1e-14)
        np.testing.assert_allclose(moments.m2, whole.m2, rtol=1e-13)


def test_which_statistics_are_kept_with_their_sums():
    batch = make_spec(Layout("NC"), np.dtype("f4"), mode="batch")
    assert keeps_exact(batch, EXACT_GROUPS)
    assert not keeps_exact(batch, EXACT_GROUPS + 1)
    assert not keeps_exact(make_spec(Layout("NCS"), np.dtype("f4"), mode="instance"), 1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_union_along_an_axis_is_that_of_its_groups(axis, length):
    rng = np.random.default_rng([axis, length])
    shape = [2, 3, 2]
    shape[axis] = length
    # Units differ from group to group, and some groups are of nothing finite.
    values = rng.normal(0, 1, (*shape, 5)) * 10.0 ** rng.integers(-150, 140, (*shape, 1))
    values[rng.random((*shape, 5)) < 0.3] = np.nan
    sums = sums_of(values)
    one_by_one = reduce(
        ExactMoments.merge, (sums[(slice(None),) * axis + (i,)] for i in range(length))
    )
    union = sums.union(axis)
    assert bits(union.canonical()) == bits(one_by_one.canonical())
    assert bits(union.finish()) == bits(one_by_one.finish())
