"""Measuring and normalizing in one walk gives the bits of doing one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import GEOMETRIES, ORDERS, block_of, exact_moments, geometry, identical

from normcli.domain.affine import Affine
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.domain.transform import forward
from normcli.domain.usability import require_usable
from normcli.engine.tables import normalizer_of
from normcli.errors import DataPolicyError
from normcli.kernels import numba_normalize
from normcli.kernels.normalizing import Recipe
from normcli.kernels.select import kernels
from tests.examples import examples

COMPUTE = kernels("numba")

# name: geometry whose groups are runs of memory
RUNS = {
    "instance": geometry((3, 5, 9, 11), (0, 1), (1,)),
    "instance, several tiles": geometry((2, 3, 4099), (0, 1), (1,)),
    "layer": geometry((37, 131), (0,), (1,)),
    "layer, several tiles": geometry((3, 5001), (0,), (1,)),
    "layer, all but N": geometry((4, 3, 8, 9), (0,), (1,)),
    "layer, scale of its own for each element": geometry((4, 3, 8, 9), (0,), (1, 2, 3)),
    "layer, scale along the last axis": geometry((4, 3, 70), (0,), (2,)),
    "groups of channels": geometry((3, 6, 8, 9), (0, 1), (1,), 1, 3),
    "nothing kept": geometry((3, 7001), (), (1,)),
    "no scale axes": geometry((9, 100), (0,), ()),
    "one group": geometry((1, 1, 777), (0, 1), (1,)),
}


def spec_of(dtype, **options):
    return make_spec(Layout("NC"), np.dtype(dtype), mode="layer", **options)


def recipe_of(whole, dtype, out, affine=Affine(), **options):  # noqa: B008 (frozen)
    spec = spec_of(dtype, **options)
    dtype = np.dtype(dtype)

    def fold(moments):
        require_usable(moments, spec, dtype, "the array")
        return normalizer_of(moments, spec, dtype)

    return Recipe(spec, whole, affine, dtype, np.dtype(out), fold)


def affine_of(whole, which, seed=3):
    random = np.random.default_rng(seed)
    scale, bias = (random.normal(1, 0.5, whole.scale_shape) for _ in range(2))
    return Affine(scale if "s" in which else None, bias if "b" in which else None)


def two_walks(values, recipe, start):
    moments = COMPUTE.finish(COMPUTE.measure(values, recipe.geometry, start))
    transform = forward(recipe.fold(moments), recipe.affine)
    return moments, COMPUTE.transform(values, transform, recipe.geometry, start, recipe.dtype)


def agree(values, recipe, start=None):
    start = (0,) * values.ndim if start is None else start
    found = COMPUTE.normalize(values, recipe, start)
    assert found is not None
    moments, result = found
    want, expected = two_walks(values, recipe, start)
    identical(moments, want)
    assert result.dtype == expected.dtype
    assert result.strides == expected.strides
    assert result.tobytes() == expected.tobytes()
    return moments, result


def data(whole, dtype, seed=1):
    return np.random.default_rng(seed).normal(50, 20, whole.shape).astype(dtype)


@pytest.fixture
def again(monkeypatch):
    """Count the blocks that are normalized once more."""
    calls = []
    transform = numba_normalize.transform
    monkeypatch.setattr(numba_normalize, "transform", lambda *a: calls.append(1) or transform(*a))
    return calls


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("which", ["", "s", "b", "sb"])
@pytest.mark.parametrize(
    ("dtype", "out"),
    [
        ("f4", "f4"),
        ("f8", "f8"),
        # Of the same two types, compiled once more each.
        pytest.param("f4", "f8", marks=pytest.mark.slow),
        pytest.param("f8", "f4", marks=pytest.mark.slow),
    ],
)
def test_the_bits_are_those_of_two_walks(again, name, which, dtype, out):
    whole = RUNS[name]
    agree(data(whole, dtype), recipe_of(whole, dtype, out, affine_of(whole, which)))
    assert not again


@pytest.mark.parametrize("name", GEOMETRIES)
def test_other_blocks_are_left_to_two_walks_or_right(name):
    whole, start, shape = block_of(name)
    extents = tuple(shape[axis] for axis in whole.scale_axes)
    affine = Affine(np.random.default_rng(1).normal(size=extents), None)
    recipe = recipe_of(whole, "f4", "f4", affine)
    for order in ORDERS.values():
        values = order(np.random.default_rng(0).normal(5, 2, shape).astype("f4"))
        if COMPUTE.normalize(values, recipe, start) is not None:
            assert values.flags.c_contiguous
            agree(values, recipe, start)


@pytest.mark.parametrize("method", ["zscore", "rms", "center", "std"])
@pytest.mark.parametrize("placement", ["inside", "outside", "floor"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 30.0])
def test_the_walk_knows_the_formula(again, method, placement, ddof, epsilon):
    whole = RUNS["layer"]
    options = {"method": method, "placement": placement, "ddof": ddof, "epsilon": epsilon}
    for dtype in ("f4", "f8"):
        values = data(whole, dtype)
        values[3] = 7.5
        values[4] = 0.0
        values[5] = -7.5
        values[5, 9] = np.nextafter(values[5, 8], values.dtype.type(0))
        agree(values, recipe_of(whole, dtype, dtype, **options))
    assert not again


@pytest.mark.parametrize("convention", ["torch", "keras", "matlab", "wolfram"])
def test_the_formula_of_a_convention_is_kept_for_constant_groups(again, convention):
    whole = RUNS["layer"]
    values = data(whole, "f4")
    values[3] = 0.1
    agree(values, recipe_of(whole, "f4", "f4", convention=convention))
    assert not again


# From one type to another is compiled once more.
OUT = [None, pytest.param("f4", marks=pytest.mark.slow), pytest.param("f8", marks=pytest.mark.slow)]


@pytest.mark.parametrize("nonfinite", ["omit", "propagate"])
@pytest.mark.parametrize("out", OUT[:2])
def test_nan_and_infinities(again, nonfinite, out):
    whole = RUNS["layer, several tiles"]
    for dtype in ("f4", "f8"):
        values = data(whole, dtype)
        values[0] = np.nan
        values[1, 4000] = -np.inf
        moments, _ = agree(values, recipe_of(whole, dtype, out or dtype, nonfinite=nonfinite))
        assert moments.nonfinite.tolist() == [5001, 1, 0]
        assert moments.count.tolist() == [0, 5000, 5001]
    assert not again


def test_constant_by_ulps(again):
    whole = geometry((12, 64), (0,), (1,))
    for dtype in ("f4", "f8"):
        values = np.ones(whole.shape, dtype)
        for row, steps in enumerate(range(12)):
            values[row, 7] += steps * np.finfo(dtype).eps
        agree(values, recipe_of(whole, dtype, dtype))
    assert not again


@pytest.mark.parametrize("out", OUT[::2])
def test_subnormal_and_huge_groups(again, out):
    whole = geometry((5, 100), (0,), (1,))
    random = np.random.default_rng(5)
    for dtype in ("f4", "f8"):
        info = np.finfo(dtype)
        top = 1e38 if dtype == "f4" else 1e150
        values = random.normal(size=whole.shape).astype(dtype)
        values[0] = random.integers(-9, 9, 100) * float(info.smallest_subnormal)
        values[1] *= top
        values[2] = np.ldexp(values[2], random.integers(-60, 60, 100)).astype(dtype)
        values[3, 50:] = 0.0
        values[4] = -0.0
        spec = recipe_of(whole, dtype, out or dtype, method="center")
        agree(values, spec)
    assert not again


def test_a_wrong_guess_is_normalized_again(again, monkeypatch):
    whole = RUNS["instance"]
    values = data(whole, "f4")
    recipe = recipe_of(whole, "f4", "f4", affine_of(whole, "sb"))
    formula = numba_normalize._formula
    monkeypatch.setattr(numba_normalize, "_formula", lambda *a: (*formula(*a)[:-1], 123.0))
    agree(values, recipe)
    assert len(again) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_moments_that_cannot_be_used_are_refused(value):
    whole = RUNS["layer"]
    values = data(whole, "f4")
    values[3, 5] = value
    with pytest.raises(DataPolicyError, match="1 NaN or infinite values in 1 of 37 groups"):
        COMPUTE.normalize(values, recipe_of(whole, "f4", "f4", nonfinite="error"), (0, 0))


def test_what_two_walks_do_is_left_to_them():
    whole = RUNS["layer"]
    for dtype, out in (("f2", "f4"), ("i4", "f4"), ("f4", "f2")):
        values = np.ones(whole.shape, dtype)
        assert COMPUTE.normalize(values, recipe_of(whole, dtype, out), (0, 0)) is None
    short = geometry((50, 63), (0,), (1,))
    assert COMPUTE.normalize(data(short, "f4"), recipe_of(short, "f4", "f4"), (0, 0)) is None
    values = data(whole, "f4")
    assert kernels("numpy").normalize(values, recipe_of(whole, "f4", "f4"), (0, 0)) is None


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("out", OUT[::2])
@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(64, 300),
    st.integers(-100, 100),
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 10**6), FLOATS), max_size=5),
)
def test_moments_are_correctly_rounded(out, seed, length, power, binades, others):
    """Any magnitudes, any spread of them, a few elements of any value: the truth, to the bit."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(2, length))
    values = np.ldexp(values, power + random.integers(-binades, 1, values.shape)).astype("f4")
    for at, value in others:
        values.reshape(-1)[at % values.size] = value
    whole = geometry(values.shape, (0,), (1,))
    recipe = recipe_of(whole, "f4", out or "f4", method="center")
    want = exact_moments(values, whole, (0, 0))
    moments, _ = COMPUTE.normalize(values, recipe, (0, 0))
    identical(moments, want)
    agree(values, recipe)


@pytest.mark.parametrize("length", [2047, 2049, 40_000, 1 << 20])
@pytest.mark.parametrize("shift", [0.0, 1e4, -3e30])
def test_long_groups_are_correctly_rounded(length, shift):
    values = (np.random.default_rng(length).normal(size=(2, length)) + shift).astype("f4")
    whole = geometry(values.shape, (0,), (1,))
    agree(values, recipe_of(whole, "f4", "f4"))
    identical(
        COMPUTE.normalize(values, recipe_of(whole, "f4", "f4"), (0, 0))[0],
        kernels("numpy").finish(kernels("numpy").measure(values, whole, (0, 0))),
    )


@pytest.mark.parametrize("value", [1.0, -1.0, np.float32(3.4e38), np.float32(1e-45)])
@pytest.mark.parametrize("out", OUT[::2])
def test_the_largest_sums_fit(out, value):
    # n elements at the top of their binade: sums are as large as they get.
    whole = geometry((1, 1 << 20), (0,), (1,))
    values = np.full(whole.shape, np.nextafter(np.float32(value), np.float32(0)), "f4")
    values[0, ::2] = value
    agree(values, recipe_of(whole, "f4", out or "f4", method="center"))
