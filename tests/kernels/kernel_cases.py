"""Geometries, memory orders and the plain oracle that the kernel tests share."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, wraps
from itertools import product
from math import prod

import ml_dtypes
import numpy as np

from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.domain.transform import Transform

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [
    np.dtype(t) for t in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
] + [BFLOAT16]


def geometry(shape, kept, scale=(), divided=None, size=1):
    segments = [1 if axis in kept else n for axis, n in enumerate(shape)]
    if divided is not None:
        segments[divided] = size
    return Geometry(tuple(shape), tuple(kept), tuple(scale), tuple(segments))


# name: geometry of the whole array, block (start, stop)
GEOMETRIES = {
    "batch NCHW": (geometry((4, 5, 6, 7), (1,), (1,)), None),
    "batch NHWC": (geometry((4, 6, 7, 5), (3,), (3,)), None),
    "batch NHWC wide": (geometry((3, 50, 7, 70), (3,), (3,)), None),
    "batch NC": (geometry((300, 3), (1,), (1,)), None),
    "batch NC, features beyond one strip of lanes": (geometry((9, 2500), (1,), (1,)), None),
    "batch NC, long": (geometry((40000, 3), (1,), (1,)), None),
    "batch NCL, short rows": (geometry((400, 3, 5), (1,), (1,)), None),
    "batch NCL, long rows": (geometry((2, 3, 9001), (1,), (1,)), None),
    "batch part of channels": (geometry((4, 50, 6), (1,), (1,)), ((1, 7, 0), (3, 19, 6))),
    "instance NCHW": (geometry((4, 5, 6, 7), (0, 1), (1,)), None),
    "instance NHWC": (geometry((4, 6, 7, 5), (0, 3), (3,)), ((1, 0, 0, 0), (4, 6, 7, 5))),
    "instance NHWC, long": (geometry((2, 3000, 5), (0, 2), (2,)), None),
    "layer last": (geometry((30, 4, 16), (0, 1), (2,)), None),
    "layer trailing": (geometry((9, 4, 5, 6), (0,), (1, 2, 3)), None),
    "layer axes 1 and 3": (geometry((3, 4, 5, 6), (0, 2), (1, 3)), None),
    "group NCHW": (geometry((4, 6, 5, 3), (0, 1), (1,), 1, 3), None),
    "group NCHW inside": (geometry((4, 6, 5, 3), (0, 1), (1,), 1, 3), ((0, 1, 0, 0), (2, 6, 5, 3))),
    "group NHWC": (geometry((4, 5, 3, 6), (0, 3), (3,), 3, 2), None),
    "group NHWC inside": (geometry((4, 5, 3, 8), (0, 3), (3,), 3, 4), ((1, 0, 0, 1), (3, 5, 3, 7))),
    "group within one": (geometry((4, 5, 3, 8), (0, 3), (3,), 3, 8), ((1, 0, 0, 1), (3, 5, 3, 3))),
    "five axes, alternating": (geometry((3, 4, 5, 6, 2), (1, 3), (0, 3)), None),
    "seven axes, alternating": (geometry((2, 3, 2, 3, 2, 3, 4), (0, 2, 4), (1, 4, 6)), None),
    "seven axes, kept last": (geometry((2, 3, 2, 3, 2, 3, 4), (1, 3, 4, 6), ()), None),
    "batches of observations": (geometry((23, 5, 4), (0, 1), (1,), 0, 4), None),
    "batches, block inside": (geometry((23, 5, 4), (0, 1), (1,), 0, 4), ((3, 0, 0), (18, 5, 4))),
    "batches NHWC": (geometry((23, 4, 5), (0, 2), (2,), 0, 4), ((5, 0, 0), (23, 4, 5))),
    "batches alone": (geometry((23,), (0,), (), 0, 5), ((2,), (21,))),
    "nothing kept": (geometry((7, 8, 9), (), (2,)), None),
    "nothing kept, long": (geometry((40000,), (), ()), None),
    "kept all but one": (geometry((7, 8, 1), (0, 1), ()), None),
    "scale disjoint": (geometry((5, 6, 7), (0,), (2,)), None),
    "scale overlapping": (geometry((5, 6, 7), (0, 1), (1, 2)), None),
    "scale first, kept last": (geometry((5, 6, 7), (2,), (0,)), None),
}


def flip(values):
    return values[tuple(slice(None, None, -1) for _ in range(values.ndim))].copy()[
        tuple(slice(None, None, -1) for _ in range(values.ndim))
    ]


def spread(values):
    wide = np.zeros([2 * n + 1 for n in values.shape], values.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in values.shape)]
    view[...] = values
    return view


def transposed(values):
    order = np.roll(np.arange(values.ndim), 1)
    return values.transpose(order).copy().transpose(np.argsort(order))


ORDERS = {
    "C": lambda values: values.copy(order="C"),
    "F": lambda values: values.copy(order="F"),
    "transposed": transposed,
    "negative strides": flip,
    "every second": spread,
}


def block_of(name):
    whole, box = GEOMETRIES[name]
    start, stop = box or ((0,) * len(whole.shape), whole.shape)
    return whole, start, tuple(b - a for a, b in zip(start, stop, strict=True))


def sample(dtype, shape, seed=0):
    random = np.random.default_rng(seed)
    if dtype.kind == "b":
        return random.random(shape) < 0.3
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = max(limits.min, -(2**40)), min(limits.max, 2**40)
        return random.integers(low, high, shape, dtype=dtype, endpoint=True)
    return (random.normal(size=shape) * 3 + 100).astype(dtype)


def group_index(whole, start, shape):
    """Return the flat group of each element, and the extents of the groups."""
    stop = tuple(a + n for a, n in zip(start, shape, strict=True))
    region = whole.region(start, stop)
    extents = tuple(part.stop - part.start for part in region)
    index = np.zeros(shape, np.int64)
    for axis, part, extent in zip(whole.kept, region, extents, strict=True):
        along = (start[axis] + np.arange(shape[axis])) // whole.segments[axis] - part.start
        index = index * extent + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return index, extents


def remembered(truth: Callable[..., Moments]) -> Callable[..., Moments]:
    """Find the truth of the same block once: it is asked for by each kernel and memory order."""

    @lru_cache(maxsize=256)
    def found(data, dtype, shape, whole, start):
        moments = truth(np.frombuffer(data, np.uint8).view(dtype).reshape(shape), whole, start)
        for name in moments.__dataclass_fields__:
            # What is shared must not be changed by one that asks.
            if isinstance(getattr(moments, name), np.ndarray):
                getattr(moments, name).flags.writeable = False
        return moments

    @wraps(truth)
    def of(values, whole, start):
        return found(values.tobytes(), values.dtype, values.shape, whole, start)

    return of


@remembered
def oracle_moments(values, whole, start):
    """Return the moments by the definition, group by group."""
    index, extents = group_index(whole, start, values.shape)
    flat, labels = values.astype(np.float64).reshape(-1), index.reshape(-1)
    order = np.argsort(labels, kind="stable")
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    result = Moments.identity((int(np.prod(extents)),))
    for group, part in enumerate(np.split(flat[order], borders)):
        finite = part[np.isfinite(part)]
        result.nonfinite[group] = part.size - finite.size
        if finite.size:
            mean = finite.mean()
            result.count[group] = finite.size
            result.mean[group] = mean
            result.m2[group] = np.square(finite - mean).sum()
            result.minimum[group], result.maximum[group] = finite.min(), finite.max()
    return Moments(*(getattr(result, f).reshape(extents) for f in result.__dataclass_fields__))


def tables(whole, start, shape, inverse=False, seed=1):
    random = np.random.default_rng(seed)
    extents = group_index(whole, start, shape)[1]
    scale = tuple(shape[axis] for axis in whole.scale_axes)
    first, second = (scale, extents) if inverse else (extents, scale)
    return Transform(
        random.normal(size=first) + 100,
        random.uniform(0.2, 2, first),
        random.uniform(-2, 2, second),
        random.normal(size=second),
        inverse,
    )


def oracle_transform(values, transform, whole, start):
    """Return the float64 result by fancy indexing."""
    groups = group_index(whole, start, values.shape)[0]
    scale = np.zeros(values.shape, np.int64)
    for axis in whole.scale_axes:
        along = np.arange(values.shape[axis])
        scale = scale * values.shape[axis] + along.reshape(
            [-1 if a == axis else 1 for a in range(values.ndim)]
        )
    first, second = (scale, groups) if transform.inverse else (groups, scale)
    out = values.astype(np.float64)
    if transform.subtract is not None:
        out = out - transform.subtract.reshape(-1)[first]
    if transform.factor is not None:
        out = out * transform.factor.reshape(-1)[first]
    if transform.multiply is not None:
        out = out * transform.multiply.reshape(-1)[second]
    if transform.add is not None:
        out = out + transform.add.reshape(-1)[second]
    return out


def measure(kernel, values, whole, start):
    """Return the moments of a block as a run rounds them."""
    return kernel.finish(kernel.measure(values, whole, start))


@remembered
def exact_moments(values, whole, start):
    """Return the moments by the definition in integers, rounded once: the truth, to the last bit.

    With elements x as multiples of ``2**-unit``, n of them and their sum s, the mean is
    ``s / n`` and m2 the sum of ``(x - s / n)**2``, which is that of ``(n * x - s)**2 / n**2``.
    """
    index, extents = group_index(whole, start, values.shape)
    members = [[] for _ in range(prod(extents))]
    integers = values.dtype.kind in "biu"
    with np.errstate(invalid="ignore"):  # signalling NaN
        elements = values if integers else values.astype(np.float64)
    for value, group in zip(elements.reshape(-1).tolist(), index.reshape(-1).tolist(), strict=True):
        members[group].append(value)
    result = Moments.identity((len(members),))
    for group, numbers in enumerate(members):
        finite = [x for x in numbers if integers or math.isfinite(x)]
        result.nonfinite[group] = len(numbers) - len(finite)
        if finite:
            n = len(finite)
            unit, scaled = (0, finite) if integers else multiples(finite)
            total = sum(scaled)
            result.count[group] = n
            result.mean[group] = rounded(Fraction(total, n << unit))
            squares = sum((n * x - total) ** 2 for x in scaled)
            result.m2[group] = rounded(Fraction(squares, n * n << 2 * unit))
            # No -0.0: which zero an extreme is would depend on the order.
            result.minimum[group] = rounded(Fraction(min(finite))) + 0.0
            result.maximum[group] = rounded(Fraction(max(finite))) + 0.0
    return Moments(*(getattr(result, f).reshape(extents) for f in result.__dataclass_fields__))


def multiples(numbers):
    """Return the unit of all floats, the exponent of ``2**-unit``, and each in it: an integer."""
    ratios = [x.as_integer_ratio() for x in numbers]
    # Denominators are powers of two; the largest is one for all.
    unit = max(denominator for _, denominator in ratios).bit_length() - 1
    return unit, [n << unit - d.bit_length() + 1 for n, d in ratios]


def rounded(number):
    """Return a fraction rounded once to float64; CPython divides integers correctly rounded."""
    try:
        return number.numerator / number.denominator
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def identical(got, want):
    """Assert that two moments have the same bits."""
    assert got.shape == want.shape
    for name in got.__dataclass_fields__:
        one, other = np.asarray(getattr(got, name)), np.asarray(getattr(want, name))
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one.view(np.int64), other.view(np.int64), err_msg=name)


def same(got, want, rtol=1e-12):
    """Assert that two moments agree."""
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_array_equal(got.nonfinite, want.nonfinite)
    np.testing.assert_array_equal(got.minimum, want.minimum)
    np.testing.assert_array_equal(got.maximum, want.maximum)
    np.testing.assert_allclose(got.mean, want.mean, rtol=rtol, atol=1e-300)
    np.testing.assert_allclose(got.m2, want.m2, rtol=rtol, atol=1e-300)
    assert got.count.dtype == np.int64
    assert got.mean.dtype == np.float64


def corners(shape):
    return list(product(*((0, n - 1) for n in shape)))
