"""What every implementation promises: all types, memory orders and geometries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_cases import (
    BFLOAT16,
    DTYPES,
    GEOMETRIES,
    ORDERS,
    block_of,
    measure,
    oracle_moments,
    oracle_transform,
    same,
    sample,
    tables,
)

from normcli.domain.transform import Transform
from normcli.kernels.select import kernels

# Compiling takes 3 s a type. Those that differ from a faster test's type only in their width or
# sign wait for make test-all.
SLOW = ("int8", "int16", "uint16", "uint32", "uint64")
EVERY_TYPE = [
    pytest.param(
        name,
        dtype,
        marks=[pytest.mark.slow] if name == "numba" and str(dtype) in SLOW else [],
        id=f"{name}-{dtype}",
    )
    for name in ("numpy", "numba")
    for dtype in DTYPES
]


@pytest.fixture(params=["numpy", "numba"])
def kernel(request):
    return kernels(request.param)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_measure_is_the_definition_in_every_geometry_and_memory_order(kernel, name):
    whole, start, shape = block_of(name)
    values = sample(np.dtype(np.float32), shape)
    want = oracle_moments(values, whole, start)
    for order in ORDERS.values():
        same(measure(kernel, order(values), whole, start), want)


@pytest.mark.parametrize("name", ["batch NCHW", "group NHWC inside", "batch NC, long"])
@pytest.mark.parametrize(("implementation", "dtype"), EVERY_TYPE)
def test_measure_takes_every_type(implementation, name, dtype):
    kernel = kernels(implementation)
    whole, start, shape = block_of(name)
    values = sample(dtype, shape)
    for order in ("C", "F"):
        got = measure(kernel, ORDERS[order](values), whole, start)
        same(got, oracle_moments(values, whole, start))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "f4") for name in GEOMETRIES]
    + [
        (name, dtype)
        for name in ("batch NCHW", "batch NC, long", "group NHWC inside")
        for dtype in ("f2", "f8", BFLOAT16)
    ],
    ids=str,
)
def test_nonfinite_elements_are_counted_and_left_out(kernel, name, dtype):
    whole, start, shape = block_of(name)
    values = sample(np.dtype(dtype), shape)
    random = np.random.default_rng(3)
    for special, share in ((np.nan, 0.05), (np.inf, 0.01), (-np.inf, 0.01)):
        values[random.random(shape) < share] = special
    values.reshape(-1)[0] = np.nan
    want = oracle_moments(values, whole, start)
    for order in ("C", "F"):
        same(measure(kernel, ORDERS[order](values), whole, start), want)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_groups_of_nothing_but_nan_are_the_identity(kernel, name):
    whole, start, shape = block_of(name)
    values = np.full(shape, np.nan, np.float32)
    got = measure(kernel, values, whole, start)
    same(got, oracle_moments(values, whole, start))
    assert (got.count == 0).all()
    assert (got.mean == 0).all()
    assert np.isposinf(got.minimum).all()


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("inverse", [False, True])
def test_transform_is_the_formula_in_every_geometry_and_memory_order(kernel, name, inverse):
    whole, start, shape = block_of(name)
    values = sample(np.dtype(np.float32), shape)
    transform = tables(whole, start, shape, inverse)
    want = oracle_transform(values, transform, whole, start)
    for order, dtype in itertools.product(("C", "F", "negative strides"), ("f4", "f8")):
        block = ORDERS[order](values)
        got = kernel.transform(block, transform, whole, start, np.dtype(dtype))
        assert got.dtype == np.dtype(dtype)
        assert got.shape == shape
        # The factors may be multiplied in another order, or with one rounding less.
        np.testing.assert_allclose(got, want, rtol=6e-8 if dtype == "f4" else 1e-13, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_the_result_is_dense_in_the_memory_order_of_the_block(kernel, order):
    whole, start, shape = block_of("batch NCHW")
    block = ORDERS[order](sample(np.dtype(np.float32), shape))
    got = kernel.transform(block, tables(whole, start, shape), whole, start, np.dtype(np.float32))
    by_stride = sorted(range(got.ndim), key=lambda axis: -abs(block.strides[axis]))
    assert got.transpose(by_stride).flags.c_contiguous


@pytest.mark.parametrize(("implementation", "dtype"), EVERY_TYPE)
@pytest.mark.parametrize("name", ["batch NCHW", "batch NHWC", "layer last"])
def test_transform_takes_every_type(implementation, name, dtype):
    kernel = kernels(implementation)
    whole, start, shape = block_of(name)
    values = sample(dtype, shape)
    transform = tables(whole, start, shape)
    want = oracle_transform(values, transform, whole, start)
    got = kernel.transform(values, transform, whole, start, np.dtype(np.float32))
    np.testing.assert_allclose(got, want, rtol=6e-8, atol=1e-5)


@pytest.mark.parametrize("absent", range(1, 16))
def test_absent_tables_leave_their_step_out(kernel, absent):
    whole, start, shape = block_of("scale overlapping")
    values = sample(np.dtype(np.float32), shape)
    every = tables(whole, start, shape)
    parts = (every.subtract, every.factor, every.multiply, every.add)
    transform = Transform(*(None if absent >> i & 1 else part for i, part in enumerate(parts)))
    got = kernel.transform(values, transform, whole, start, np.dtype(np.float64))
    want = oracle_transform(values, transform, whole, start)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize("name", ["batch NCHW", "batch NHWC wide", "layer last"])
def test_nan_stays_nan_and_infinity_stays_infinity(kernel, name, dtype):
    whole, start, shape = block_of(name)
    values = sample(np.dtype(dtype), shape)
    values.reshape(-1)[[0, 7, 8]] = np.nan, np.inf, -np.inf
    extents = tables(whole, start, shape).factor.shape
    transform = Transform(np.ones(extents), np.full(extents, 0.5), None, None)
    got = kernel.transform(values, transform, whole, start, np.dtype(dtype)).reshape(-1)
    assert np.isnan(got[0])
    assert got[7] == np.inf
    assert got[8] == -np.inf
    assert np.isfinite(got[9:]).all()


def test_a_constant_group_becomes_exactly_what_is_added(kernel):
    whole, start, shape = block_of("batch NCHW")
    values = sample(np.dtype(np.float32), shape)
    values[0, 0, 0, 0] = np.nan
    every = tables(whole, start, shape)
    transform = Transform(every.subtract, np.zeros(5), every.multiply, every.add)
    got = kernel.transform(values, transform, whole, start, np.dtype(np.float64))
    assert np.isnan(got[0, 0, 0, 0])
    got[0, 0, 0, 0] = every.add[0]
    np.testing.assert_array_equal(got, np.broadcast_to(every.add.reshape(5, 1, 1), shape))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind in "biu"], ids=str)
def test_integers_are_rounded_to_nearest_and_clipped(kernel, dtype):
    whole, start, shape = block_of("nothing kept, long")
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = np.zeros(shape)
    values[:8] = [np.nan, np.inf, -np.inf, 0.5, 1.5, 0.7, 1e300, -1e300]
    nothing = Transform(None, None, None, None)
    got = kernel.transform(values, nothing, whole, start, dtype)
    assert got.dtype == dtype
    want = [0, high, low, 0, min(2, high), 1, high, low]
    assert [int(x) for x in got[:8]] == want
    assert not got[8:].any()


def test_bfloat16_is_rounded_once(kernel):
    # Just above the middle between 1 and the next bfloat16: float32 would round onto the middle,
    # and from there to even, down to 1.
    whole, start, shape = block_of("nothing kept, long")
    values = np.ones(shape)
    values[:4] = [1 + 2.0**-8 + 2.0**-40, -(1 + 2.0**-8 + 2.0**-40), 3.39e38, 2.0**-134 * 1.0001]
    nothing = Transform(None, None, None, None)
    got = kernel.transform(values, nothing, whole, start, BFLOAT16).astype(np.float64)
    assert got[0] == 1 + 2.0**-7
    assert got[1] == -(1 + 2.0**-7)
    assert got[3] == 2.0**-133
    np.testing.assert_array_equal(got[4:], 1.0)


def test_tables_of_other_extents_are_refused(kernel):
    whole, start, shape = block_of("batch NCHW")
    wrong = Transform(np.zeros(4), np.ones(4), None, None)
    with pytest.raises(ValueError, match="shape"):
        kernel.transform(np.zeros(shape), wrong, whole, start, np.dtype(np.float64))


def test_a_block_that_is_read_only_is_taken(kernel):
    whole, start, shape = block_of("batch NCHW")
    values = sample(np.dtype(np.float32), shape)
    values.flags.writeable = False
    same(measure(kernel, values, whole, start), oracle_moments(values, whole, start))
    kernel.transform(values, tables(whole, start, shape), whole, start, np.dtype(np.float32))
