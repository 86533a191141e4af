"""Moments: what merging promises, and how groups without spread are found."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.domain.constancy import constant_groups
from normcli.domain.dtypes import output_dtype, parse_dtype, require_real, spacing
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.presets import make_spec
from normcli.domain.statistics import SourceDescription, Statistics, pooled_estimate
from normcli.domain.usability import require_resolved, require_usable
from normcli.errors import DataPolicyError, InputError, UsageError

SAMPLES = st.lists(
    st.one_of(
        st.floats(-1e6, 1e6, allow_nan=False),
        st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e8, 1e8 + 1]),
    ),
    max_size=12,
)


def moments_of(values, shape=()) -> Moments:
    """Two passes over a plain list, rounded once: the oracle."""
    finite = [Fraction(v) for v in values if math.isfinite(v)]
    mean = sum(finite) / len(finite) if finite else Fraction(0)
    m2 = sum((v - mean) ** 2 for v in finite)
    numbers = (
        len(finite),
        float(mean),
        float(m2),
        float(min(finite)) if finite else math.inf,
        float(max(finite)) if finite else -math.inf,
        len(values) - len(finite),
    )
    kinds = ("i8", "f8", "f8", "f8", "f8", "i8")
    return Moments(*(np.full(shape, n, k) for n, k in zip(numbers, kinds, strict=True)))


def stacked(*groups) -> Moments:
    parts = [moments_of(values) for values in groups]
    return Moments(*(np.stack([getattr(p, f.name) for p in parts]) for f in fields(Moments)))


def assert_same_bits(a: Moments, b: Moments) -> None:
    for f in fields(Moments):
        left, right = np.asarray(getattr(a, f.name)), np.asarray(getattr(b, f.name))
        assert left.dtype == right.dtype, f.name
        assert left.shape == right.shape, f.name
        assert left.tobytes() == right.tobytes(), f.name


def assert_close(a: Moments, b: Moments) -> None:
    for name in ("count", "minimum", "maximum", "nonfinite"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    largest = np.maximum(np.abs(a.minimum), np.abs(a.maximum))
    largest = np.where(np.isfinite(largest), largest, 0.0)
    assert np.all(np.abs(a.mean - b.mean) <= 1e-12 * largest)
    # The sum of squares is good to 1e-12 of itself, or to what a rounded mean does to it.
    error = 4 * np.spacing(largest)
    slack = 1e-12 * np.maximum(a.m2, b.m2) + a.count * error**2
    slack += 2 * error * np.sqrt(a.count * np.maximum(a.m2, b.m2))
    assert np.all(np.abs(a.m2 - b.m2) <= slack)


@given(SAMPLES)
def test_the_identity_changes_no_bit(values):
    one = moments_of(values)
    nothing = Moments.identity(())
    assert_same_bits(nothing.merge(one), one)
    assert_same_bits(one.merge(nothing), one)
    assert_same_bits(nothing.merge(nothing), nothing)


@given(SAMPLES, SAMPLES)
def test_merging_is_the_union(left, right):
    assert_close(moments_of(left).merge(moments_of(right)), moments_of(left + right))


@given(SAMPLES, SAMPLES, SAMPLES)
def test_merging_is_associative(a, b, c):
    one, two, three = moments_of(a), moments_of(b), moments_of(c)
    assert_close(one.merge(two).merge(three), one.merge(two.merge(three)))


@given(SAMPLES, SAMPLES)
def test_the_sum_of_squares_is_never_negative(left, right):
    merged = moments_of(left).merge(moments_of(right))
    assert merged.m2 >= 0
    if merged.count:
        assert merged.variance() >= 0


def test_groups_are_merged_apart_from_each_other():
    left, right = stacked([1.0, 2.0], [], [5.0]), stacked([4.0], [7.0, 9.0], [])
    merged = left.merge(right)
    assert_same_bits(merged[0], moments_of([1.0, 2.0]).merge(moments_of([4.0])))
    assert_same_bits(merged[1], moments_of([7.0, 9.0]))
    assert_same_bits(merged[2], moments_of([5.0]))


def test_against_numpy():
    rng = np.random.default_rng(5)
    x = rng.normal(1e4, 3.0, size=(700, 4))
    cuts = [0, 1, 2, 300, 300, 699, 700]
    merged = Moments.identity((4,))
    for low, high in itertools.pairwise(cuts):
        part = Moments(
            *(
                np.array([getattr(moments_of(x[low:high, c].tolist()), f.name) for c in range(4)])
                for f in fields(Moments)
            )
        )
        merged = merged.merge(part)
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(merged.variance(), x.var(0), rtol=1e-12)
    np.testing.assert_allclose(merged.variance(1), x.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(merged.mean_square(), (x * x).mean(0), rtol=1e-14)
    np.testing.assert_array_equal(merged.minimum, x.min(0))


def test_variance_without_a_divisor_is_nan():
    few = stacked([], [3.0], [3.0, 5.0])
    np.testing.assert_array_equal(few.variance(), [np.nan, 0.0, 1.0])
    np.testing.assert_array_equal(few.variance(1), [np.nan, np.nan, 2.0])


def test_overflow_leaves_infinity_and_no_warning():
    merged = moments_of([1e300]).merge(moments_of([-1e300]))
    assert not np.isfinite(merged.m2)
    with pytest.raises(DataPolicyError, match="leave float64"):
        require_usable(merged, SPEC, np.dtype("f8"), "x.npy")


SPEC = make_spec(Layout("NC"), np.dtype("f8"))
FLOATS = [np.dtype(t) for t in ("f2", "f4", "f8")] + [np.dtype(ml_dtypes.bfloat16)]


def _ulps_above(start: float, dtype: np.dtype, steps: int) -> float:
    value = np.asarray(start, dtype)
    for _ in range(steps):
        value = np.nextafter(value, np.asarray(np.inf, dtype))
    return float(value)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("start", [1.0, 1.5, 97.0, -3.0, 0.0])
def test_four_units_in_the_last_place_are_constant(dtype, start):
    low = float(np.asarray(start, dtype))
    near, far = _ulps_above(low, dtype, 4), _ulps_above(low, dtype, 5)
    both = stacked([low, near], [low, far], [low])
    np.testing.assert_array_equal(constant_groups(both, dtype), [True, False, True])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_spacing_is_that_of_the_type(dtype):
    for value in (1.0, 1.75, 2.0, 300.0, 0.1):
        own = np.asarray(value, dtype)
        step = float(np.nextafter(own, np.asarray(np.inf, dtype))) - float(own)
        assert spacing(dtype, np.float64(own)) == step
    smallest = float(np.nextafter(np.asarray(0, dtype), np.asarray(1, dtype)))
    assert spacing(dtype, np.float64(0.0)) == smallest


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "i8"])
def test_integers_are_constant_when_equal(dtype):
    both = stacked([1.0, 1.0], [0.0, 1.0], [])
    np.testing.assert_array_equal(constant_groups(both, np.dtype(dtype)), [True, False, False])


def test_nothing_is_not_constant():
    assert not constant_groups(stacked([], [math.nan]), np.dtype("f4")).any()


def test_estimates_follow_the_policy_of_the_spec():
    seen = stacked([1.0, 3.0, math.nan], [2.0, 6.0], [math.nan])
    mean, variance = pooled_estimate(seen, SPEC)
    np.testing.assert_array_equal(mean, [2.0, 4.0, np.nan])
    np.testing.assert_array_equal(variance, [1.0, 4.0, np.nan])
    strict = make_spec(Layout("NC"), np.dtype("f8"), nonfinite="propagate", ddof=1)
    mean, variance = pooled_estimate(seen, strict)
    np.testing.assert_array_equal(mean, [np.nan, 4.0, np.nan])
    np.testing.assert_array_equal(variance, [np.nan, 8.0, np.nan])


@pytest.mark.parametrize(
    ("groups", "options", "dtype", "says"),
    [
        ([[1.0, math.nan]], {"nonfinite": "error"}, "f4", "1 NaN or infinite"),
        ([[1.0], [1.0, 2.0]], {"ddof": 1}, "f4", "one element"),
        # Squares of such differences are 0 in float64, though the values differ.
        ([[0.0, 1e-170]], {}, "f8", "leaves float64"),
    ],
)
def test_moments_that_cannot_be_used(groups, options, dtype, says):
    spec = make_spec(Layout("NC"), np.dtype("f8"), **options)
    with pytest.raises(DataPolicyError, match=says) as caught:
        require_usable(stacked(*groups), spec, np.dtype(dtype), "x.npy")
    assert caught.value.hint


def test_integers_that_float64_cannot_tell_apart_are_not_normalized():
    close = stacked([2.0**60, 2.0**60 + 4096])
    require_usable(close, SPEC, np.dtype("i8"), "x.npy")  # mean and variance are right
    with pytest.raises(DataPolicyError, match="beyond 2\\*\\*53") as caught:
        require_resolved(close, np.dtype("i8"), "x.npy")
    assert caught.value.hint
    for groups, dtype in [
        ([[0.0, 2.0**62]], "i8"),
        ([[2.0**40, 2.0**40 + 1]], "i8"),
        ([[2.0**60], []], "u8"),
        ([[2.0**60, 2.0**60 + 4096]], "f8"),
    ]:
        require_resolved(stacked(*groups), np.dtype(dtype), "x.npy")


def test_mean_squares_up_to_the_end_of_float64_are_used():
    rms = make_spec(Layout("NC"), np.dtype("f8"), method="rms")
    require_usable(stacked([1e153, -1e153]), rms, np.dtype("f8"), "x.npy")
    with pytest.raises(DataPolicyError, match="leave float64"):
        require_usable(stacked([1e155, 1e155]), rms, np.dtype("f8"), "x.npy")
    require_usable(stacked([1e155, 1e155]), SPEC, np.dtype("f8"), "x.npy")


def test_moments_that_can_be_used():
    spec = make_spec(Layout("NC"), np.dtype("f8"))
    for groups, dtype in [
        ([[1.0, math.nan], []], "f4"),
        ([[5e-324, 5e-324]], "f8"),
        ([[1e-40, 3e-40]], "f4"),
        ([[0.0, 2.0**62]], "i8"),
        ([[2.0**40, 2.0**40 + 1]], "i8"),
        ([[2.0**60]], "i8"),
    ]:
        require_usable(stacked(*groups), spec, np.dtype(dtype), "x.npy")


def test_statistics_choose_among_their_estimates():
    source = SourceDescription((3, 2), np.dtype("f8"))
    given = Statistics(SPEC, source, None, given=(np.zeros(2), np.ones(2)))
    assert given.shape == (2,)
    assert not given.constant().any()
    with pytest.raises(InputError, match="no moving"):
        given.estimate("moving")
    with pytest.raises(InputError, match="neither"):
        Statistics(SPEC, source, None).pooled()
    own = Statistics(SPEC, source, stacked([1.0, 1.0], [1.0, 2.0]))
    np.testing.assert_array_equal(own.constant(), [True, False])
    # A convention keeps its own formula, constant groups included.
    torch = make_spec(Layout("NC"), np.dtype("f8"), convention="torch")
    assert not Statistics(torch, source, own.moments).constant().any()


@pytest.mark.parametrize(
    ("dtype", "output"),
    [
        ("f2", "f2"),
        (">f4", ">f4"),
        ("f8", "f8"),
        ("?", "f4"),
        ("i1", "f4"),
        ("u2", "f4"),
        ("i4", "f8"),
        ("u8", "f8"),
    ],
)
def test_output_types(dtype, output):
    assert output_dtype(np.dtype(dtype)) == np.dtype(output)


def test_types_that_are_refused():
    for dtype in ("c16", "O", "S3", "U3", "M8[s]", "m8[s]", [("a", "f4")], "V4"):
        with pytest.raises(InputError, match=r"x\.npy holds"):
            require_real(np.dtype(dtype), "x.npy")
    if np.dtype("g").itemsize > 8:
        with pytest.raises(InputError):
            require_real(np.dtype("g"), "x.npy")
    for text in ("complex64", "str", "nonsense", "M8"):
        with pytest.raises(UsageError, match="not a type normcli writes"):
            parse_dtype(text)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_index_and_store(seed, groups):
    rng = np.random.default_rng(seed)
    many = stacked(*([*rng.normal(size=3)] for _ in range(groups)))
    copy = Moments.identity((groups,))
    order = rng.permutation(groups)
    for i in order:
        copy.store(slice(i, i + 1), many[i : i + 1])
    assert_same_bits(copy, many)
    assert many.nbytes == 48 * groups
