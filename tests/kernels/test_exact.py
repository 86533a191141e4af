"""Mean and m2 against rational arithmetic: equal to the last bit, for every type and layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    BFLOAT16,
    GEOMETRIES,
    ORDERS,
    block_of,
    exact_moments,
    geometry,
    identical,
    measure,
)

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.kernels.select import kernels
from tests.examples import examples

NAMES = ["numpy", "numba"]


@pytest.fixture(params=NAMES)
def kernel(request):
    return kernels(request.param)


def full_range(dtype, shape, seed=0):
    """Return integers of the whole range of a type, or floats of all its magnitudes."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.3
    if dtype.kind in "iu":
        return random.integers(
            np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True
        )
    width = 8 * dtype.itemsize
    bits = random.integers(0, 2**64, shape, dtype=np.uint64, endpoint=False)
    return (bits >> np.uint64(64 - width)).astype(f"u{dtype.itemsize}").view(dtype)


def near(dtype, shape, seed=0):
    """Return what data mostly are: of one magnitude, with some 0, far outliers and none finite."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape) * 3 + 7
    values[random.random(shape) < 0.05] = 0.0
    values[random.random(shape) < 0.002] *= 1e3
    values = values.astype(dtype)
    values[random.random(shape) < 0.002] = np.nan
    values[random.random(shape) < 0.001] = np.inf
    return values


TYPES = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", BFLOAT16)
SLOW = ("i1", "i2", "u2", "u4", "u8")
EVERY_TYPE = [
    pytest.param(
        name,
        dtype,
        marks=[pytest.mark.slow] if name == "numba" and dtype in SLOW else [],
        id=f"{name}-{dtype}",
    )
    for name in NAMES
    for dtype in TYPES
]

LAYOUTS = [
    ("one group", (3001,), ()),
    ("rows", (3, 2500), (0,)),
    ("columns", (300, 5), (1,)),
    ("axis 0", (150, 700), (1,)),
    ("channels first", (3, 2, 40, 11), (1,)),
    ("channels last", (3, 40, 11, 2), (3,)),
    ("short rows", (150, 3, 5), (1,)),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
@pytest.mark.parametrize(("name", "dtype"), EVERY_TYPE)
def test_any_values_of_any_type_are_summed_without_error(name, dtype, layout):
    _, shape, kept = layout
    whole = geometry(shape, kept)
    values = full_range(dtype, shape)
    want = exact_moments(values, whole, (0,) * len(shape))
    for order in ("C", "F", "every second"):
        block = ORDERS[order](values)
        identical(measure(kernels(name), block, whole, (0,) * len(shape)), want)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", BFLOAT16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_usual_values_are_summed_without_error(kernel, dtype, layout):
    _, shape, kept = layout
    whole = geometry(shape, kept)
    values = near(dtype, shape)
    identical(
        measure(kernel, values, whole, (0,) * len(shape)),
        exact_moments(values, whole, (0,) * len(shape)),
    )


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_every_geometry_in_every_memory_order(kernel, name, dtype):
    whole, start, shape = block_of(name)
    values = near(dtype, shape)
    want = exact_moments(values, whole, start)
    for order in ORDERS.values():
        identical(measure(kernel, order(values), whole, start), want)


def repeated(moments, number):
    """Return the moments of one group for so many."""
    names = moments.__dataclass_fields__
    return Moments(*(np.repeat(getattr(moments, name), number) for name in names))


N = 4099  # two tiles of rows, and many of columns
HARD = {
    "cancelled": [1e16, 1.0, -1e16],
    "cancelled in thirds": [1e300, 1.0, -1e300, 3e-5],
    "one outlier": [*[1e-3] * N, 1e12],
    "an outlier first": [1e12, *[1e-3] * N],
    "outliers of both ends": [*np.linspace(1, 2, N), 1e30, -1e-30, 1e-25],
    "growing": np.ldexp(1.1, np.arange(-60, 60) // 2),
    "shrinking": np.ldexp(1.1, -np.arange(-60, 60) // 2),
    "alternating": np.where(np.arange(N) % 2, 1e7, -1e7) + np.arange(N) / 7,
    "all equal": [0.1] * N,
    "all zero": [0.0] * N,
    "zeros of both signs": [0.0, -0.0] * 50,
    "negative zeros": [-0.0] * 50,
    "negative": -np.linspace(1, 2, N),
    "nothing finite": [np.nan, np.inf, -np.inf],
    "gaps": [1.5, np.nan, -np.inf, 2.25, np.inf, 1e-9],
    "gaps in every tile": np.where(np.arange(N) % 7, np.arange(N) / 3, np.nan),
    "one": [0.1],
    "near 1e8": 1e8 + np.arange(N) % 101 / 101,
}
DOUBLE = {
    "subnormal": np.arange(N) % 7 * 5e-324,
    "subnormal and one normal": [*np.arange(N) % 7 * 5e-324, 1e-290],
    "squares below float64": 1e-300 * (1 + np.arange(N) % 13),
    "squares beyond float64": 1e300 * (1 + np.arange(N) % 13),
    "beyond float64, but not its spread": 1e300 * (1 + np.arange(N) % 13 * 2.0**-50),
    "squares half a subnormal": [2.0**-537, -(2.0**-537), 2.0**-538, -(2.0**-538)],
    "a little more": [s * 2.0**-p for p in (537, 538, 600) for s in (1, -1)],
    "under the smallest": [2.0**-538, -(2.0**-538), 0.0],
    "over half of the smallest": [2.0**-538, -(2.0**-538), 2.0**-700],
    "nothing but rounding": [2.0**-560, -(2.0**-561)],
    "sums beyond float64": [1.7e308] * N,
    "extremes of float64": [1.7976931348623157e308, -1.7976931348623157e308, 5e-324],
    "everything": np.ldexp(1.3, np.arange(-1074, 1024)),
}
SINGLE = {
    "subnormal": np.arange(N) % 7 * 1e-45,
    "near the largest": np.array([3e38, -3e38, 3.1e38, 2.9e38] * 700),
    "everything": np.ldexp(1.3, np.arange(-149, 127)),
}
VECTORS = (
    [("f8", name, HARD[name]) for name in HARD]
    + [("f4", name, HARD[name]) for name in HARD if "thirds" not in name]
    + [("f8", name, DOUBLE[name]) for name in DOUBLE]
    + [("f4", name, SINGLE[name]) for name in SINGLE]
    + [("f2", "one outlier", [*[1e-3] * N, 6e4]), ("f2", "subnormal", np.arange(N) % 7 * 6e-8)]
)


@pytest.mark.parametrize(
    ("dtype", "vector"), [(d, v) for d, _, v in VECTORS], ids=[f"{d}-{n}" for d, n, _ in VECTORS]
)
@pytest.mark.parametrize("beside", ["alone", "another lane", "many lanes"])
def test_hard_sums(kernel, dtype, vector, beside):
    with np.errstate(over="ignore", under="ignore"):
        vector = np.asarray(vector).astype(dtype)
    if beside == "alone":
        values, kept = vector, ()
    else:
        lanes = 2 if beside == "another lane" else 300
        values, kept = np.repeat(vector[:, np.newaxis], lanes, axis=1), (1,)
        # Lanes with other powers of two.
        values[:, 1] = np.linspace(1, 2, len(vector))
    whole = geometry(values.shape, kept)
    got = measure(kernel, values, whole, (0,) * values.ndim)
    lanes = [vector] if not kept else [vector, values[:, 1]]
    for lane, elements in enumerate(lanes):
        want = exact_moments(elements, geometry(elements.shape, ()), (0,))
        identical(got if not kept else got[lane], want)
    if kept and values.shape[1] > 2:
        identical(got[2:], repeated(got[0], values.shape[1] - 2))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rows_of_every_length(kernel, dtype):
    # Fewer elements than lanes, all lanes full, and some elements more; one tile and the next.
    for length in (*range(1, 101), *range(2046, 2051), 2111):
        vector = near(dtype, (length,), seed=length)
        # An extreme, and what is not finite, among the last ones.
        vector[-1 - length % 7 % length] = -1e4
        vector[length // 2] = np.nan if length % 3 == 0 else vector[length // 2]
        whole = geometry(vector.shape, ())
        want = exact_moments(vector, whole, (0,))
        identical(measure(kernel, vector, whole, (0,)), want)


@pytest.mark.parametrize("dtype", ["i8", "u8"])
@pytest.mark.parametrize("spread", [1, 2, 1000, 2**40])
@pytest.mark.parametrize("beside", [False, True])
def test_integers_at_the_ends_of_64_bits(kernel, dtype, spread, beside):
    limits = np.iinfo(dtype)
    for base in (limits.max - spread, limits.min, 2**53, 2**62):
        vector = np.array([base + i * 7919 % (spread + 1) for i in range(1010)], dtype)
        values = np.stack([vector, vector], axis=1) if beside else vector
        whole = geometry(values.shape, (1,) if beside else ())
        want = exact_moments(values, whole, (0,) * values.ndim)
        identical(measure(kernel, values, whole, (0,) * values.ndim), want)
        if spread > 1:
            assert (want.m2 > 0).all()


@pytest.mark.parametrize("axis", [0, 1, None])
def test_groups_of_nothing_are_the_identity(kernel, axis):
    values = np.array([[np.nan, 1.0], [np.nan, 2.0], [np.nan, np.nan]], np.float32)
    kept = tuple(a for a in (0, 1) if a != axis and axis is not None)
    whole = geometry(values.shape, kept)
    identical(measure(kernel, values, whole, (0, 0)), exact_moments(values, whole, (0, 0)))


def test_more_elements_than_a_tile_may_hold_in_columns(kernel):
    # Beyond 512 tiles of 128 rows, after which sums of lanes are put away.
    values = near("f8", (70000, 2))
    whole = geometry(values.shape, (1,))
    identical(measure(kernel, values, whole, (0, 0)), exact_moments(values, whole, (0, 0)))


def test_more_groups_than_are_rounded_at_once(kernel):
    values = near("f4", (3, 2, 4099))
    whole = geometry(values.shape, (1, 2))
    identical(measure(kernel, values, whole, (0, 0, 0)), exact_moments(values, whole, (0, 0, 0)))


@st.composite
def vectors(draw):
    """Return numbers of any magnitudes, as their mantissas and powers of two."""
    count = draw(st.integers(1, 40))
    numbers = st.one_of(
        st.floats(width=64),
        st.floats(-10, 10),
        st.builds(np.ldexp, st.floats(-2, 2), st.integers(-1080, 1023)),
        st.sampled_from([0.0, -0.0, 5e-324, 1e16, -1e16, 1.0, 1e300, np.nan]),
    )
    return np.array(draw(st.lists(numbers, min_size=count, max_size=count)), np.float64)


@settings(max_examples=examples(300), deadline=None)
@given(vector=vectors(), data=st.data())
def test_any_partition_in_any_order_gives_the_truth(vector, data):
    want = exact_moments(vector, geometry(vector.shape, ()), (0,))
    shuffled = vector[data.draw(st.permutations(range(vector.size)))]
    cuts = data.draw(st.lists(st.integers(0, vector.size), max_size=4))
    found = []
    for low, high in itertools.pairwise(sorted({0, vector.size, *cuts})):
        part = shuffled[low:high]
        kernel = kernels(data.draw(st.sampled_from(NAMES)))
        found.append(kernel.measure(part, geometry(part.shape, ()), (0,)))
    while len(found) > 1:
        left = found.pop(data.draw(st.integers(0, len(found) - 1)))
        right = found.pop(data.draw(st.integers(0, len(found) - 1)))
        found.append(left.merge(right))
    for name in NAMES:
        identical(kernels(name).finish(found[0]), want)
    identical(found[0].merge(ExactMoments.identity(())).finish(), want)
    identical(ExactMoments.identity(()).merge(found[0]).finish(), want)


@pytest.mark.parametrize("part", ["all", "positive", "negative", "subnormal", "zeros"])
def test_finite_float16_of_every_magnitude(kernel, part):
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits.view(np.float16)
    chosen = {
        "all": np.isfinite(values),
        "positive": np.isfinite(values) & (values > 0),
        "negative": np.isfinite(values) & (values < 0),
        "subnormal": np.abs(values) < np.finfo(np.float16).smallest_normal,
        "zeros": values == 0,
    }[part]
    values = np.repeat(values[chosen], 5 if part != "zeros" else 1500)
    np.random.default_rng(1).shuffle(values)
    whole = geometry(values.shape, ())
    found = measure(kernel, values, whole, (0,))
    identical(found, exact_moments(values, whole, (0,)))
