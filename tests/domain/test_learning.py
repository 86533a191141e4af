"""What is learned, against fractions, brute force and numpy's least squares."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.domain.geometry import Geometry
from normcli.domain.learning import Objective, Term, require_learnable, squared_error
from normcli.domain.learning_exact import solve_exact
from normcli.domain.pair_moments import PairMoments
from normcli.errors import DataPolicyError
from normcli.kernels.numpy_pairs import measure_pairs, tile_pairs

CONVENTIONS = ("sum", "keras", "torch", "matlab")


def pairs_of(z: np.ndarray, t: np.ndarray) -> PairMoments:
    """Return the sums over each row."""
    return tile_pairs(np.atleast_2d(z).astype(float), np.atleast_2d(t).astype(float))


def objective(cells: int, convention: str = "sum", **terms: dict) -> Objective:
    scale = Term(np.ones(cells), **terms.get("scale", {}))
    bias = Term(np.zeros(cells), **terms.get("bias", {}))
    return Objective(convention, scale, bias)


def exact_sums(z: np.ndarray, t: np.ndarray) -> dict[str, Fraction]:
    """Return the sums of one cell by fractions."""
    pairs = [
        (Fraction(a), Fraction(b))
        for a, b in zip(z.tolist(), t.tolist(), strict=True)
        if np.isfinite(a) and np.isfinite(b)
    ]
    n = len(pairs)
    mean, target = (sum(p[i] for p in pairs) / n for i in (0, 1))
    return {
        "count": Fraction(n),
        "mean": mean,
        "target_mean": target,
        "m2": sum((a - mean) ** 2 for a, _ in pairs),
        "target_m2": sum((b - target) ** 2 for _, b in pairs),
        "product": sum((a - mean) * (b - target) for a, b in pairs),
    }


@pytest.mark.parametrize("far", [0.0, 1e8, -3e12])
def test_sums_are_those_of_fractions_where_the_target_is_far_from_zero(far: float):
    random = np.random.default_rng(1)
    z = random.normal(size=(40, 50))
    t = far + 2.5 * z + random.normal(size=z.shape)
    merged = pairs_of(z, t).fold(0)
    true = exact_sums(z.ravel(), t.ravel())
    size = float(true["m2"] * true["target_m2"]) ** 0.5
    assert merged.count == 2000
    for name in ("m2", "target_m2"):
        assert abs(Fraction(float(getattr(merged, name))) / true[name] - 1) < 1e-14
    assert abs(float(Fraction(float(merged.product)) - true["product"])) < 1e-14 * size
    mean = Fraction(float(merged.target_mean)) + Fraction(float(merged.target_tail))
    # Each element is rounded to its own last place; the mean of both parts is known further.
    assert abs(float(mean - true["target_mean"])) < 1e-15 * max(1, abs(far)) * 1e-3 + 1e-15


def test_pairs_with_one_element_that_is_not_finite_are_skipped():
    z = np.array([[1.0, np.nan, 2, 3, 4], [np.nan] * 5])
    t = np.array([[1.0, 5, np.inf, 6, 2], [1.0] * 5])
    found = pairs_of(z, t)
    true = exact_sums(z[0], t[0])
    assert found.count.tolist() == [3, 0]
    assert found.skipped.tolist() == [2, 5]
    for name in ("mean", "target_mean", "m2", "target_m2", "product"):
        assert getattr(found, name)[0] == pytest.approx(float(true[name]), rel=1e-15)
        assert getattr(found, name)[1] == 0
    both = found[:1].merge(found[1:])
    assert both.skipped == 7
    for name in ("count", "mean", "m2", "product", "target_mean"):
        assert getattr(both, name) == getattr(found, name)[:1]


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    kept=st.sets(st.integers(0, 2)),
    segment=st.integers(1, 3),
    nan=st.booleans(),
)
def test_the_kernel_sums_over_any_axes(shape, kept, segment, nan):
    axes = tuple(sorted(kept))
    segments = tuple(
        (min(segment, n) if axis == axes[0] else 1) if axis in kept else n
        for axis, n in enumerate(shape)
    )
    random = np.random.default_rng(sum(shape))
    z, t = random.normal(size=(2, *shape))
    if nan:
        t[t > 1] = np.nan
    found = measure_pairs(z, t, Geometry(shape, axes, (), segments), (0, 0, 0))
    index = np.indices(shape)
    for cell in np.ndindex(found.shape):
        own = np.ones(shape, bool)
        for axis, i in zip(axes, cell, strict=True):
            own &= index[axis] // segments[axis] == i
        one = pairs_of(z[own], t[own])
        for f in fields(found):
            value = getattr(found, f.name)[cell]
            if not f.name.endswith("tail"):
                assert value == pytest.approx(getattr(one, f.name)[0], rel=1e-12, abs=1e-14)


@given(cuts=st.lists(st.integers(1, 29), max_size=5, unique=True))
def test_merging_is_close_for_any_cut(cuts):
    random = np.random.default_rng(3)
    z, t = random.normal(size=30), random.normal(1e6, 1, size=30)
    bounds = [0, *sorted(cuts), 30]
    merged = PairMoments.identity((1,))
    for a, b in pairwise(bounds):
        merged = merged.merge(pairs_of(z[a:b], t[a:b]))
    true = exact_sums(z, t)
    for name in ("m2", "target_m2", "product"):
        assert getattr(merged, name)[0] == pytest.approx(float(true[name]), rel=1e-13)


def fraction_solution(z, t, ls: Fraction, lb: Fraction) -> tuple[Fraction, Fraction]:
    """Return the solution of the normal equations by fractions, as the semantics write them."""
    z, t = [Fraction(v) for v in z.tolist()], [Fraction(v) for v in t.tolist()]
    n, sz, st_ = len(z), sum(z), sum(t)
    szz = sum(v * v for v in z) + ls
    szt = sum(a * b for a, b in zip(z, t, strict=True))
    det = szz * (n + lb) - sz * sz
    return (szt * (n + lb) - sz * st_) / det, (szz * st_ - sz * szt) / det


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("l2", [(0, 0), (0.5, 0), (0, 2.0), (0.25, 8.0)])
def test_the_normal_equations_of_each_convention_by_fractions(convention, l2):
    random = np.random.default_rng(7)
    z = random.normal(0.3, 1, size=(2, 25))
    t = 2 * z - 5 + random.normal(size=z.shape)
    observations = 5
    made = objective(2, convention, scale={"l2": l2[0]}, bias={"l2": l2[1]})
    found = solve_exact(made, pairs_of(z, t), observations)
    # Section 3 of the formulas: what a convention's penalty is in the sum form.
    times = {"sum": 1.0, "keras": 50.0, "torch": 25.0, "matlab": 5.0}[convention]
    for cell in range(2):
        s, b = fraction_solution(z[cell], t[cell], *(Fraction(v * times) for v in l2))
        assert found.scale[cell] == pytest.approx(float(s), rel=2e-14)
        assert found.bias[cell] == pytest.approx(float(b), rel=2e-14)
    assert not found.undetermined.any()


def test_numpy_least_squares():
    random = np.random.default_rng(8)
    z = random.normal(size=500)
    t = 3 * z + 273.15 + random.normal(size=500)
    found = solve_exact(objective(1), pairs_of(z, t), 500)
    (s, b), *_ = np.linalg.lstsq(np.stack([z, np.ones(500)], 1), t, rcond=None)
    assert found.scale[0] == pytest.approx(s, rel=1e-13)
    assert found.bias[0] == pytest.approx(b, rel=1e-14)


def test_one_term_frozen_or_absent():
    random = np.random.default_rng(9)
    z, t = random.normal(1, 2, size=(2, 60))
    sums = pairs_of(z, t)
    frozen = objective(1, scale={"learned": False}, bias={"l2": 3.0})
    frozen = replace(frozen, scale=replace(frozen.scale, start=np.array([4.0])))
    found = solve_exact(frozen, sums, 60)
    assert found.scale[0] == 4
    assert found.bias[0] == pytest.approx((t - 4 * z).sum() / 63, rel=1e-13)
    absent = objective(1, scale={"l2": 3.0}, bias={"present": False, "learned": False})
    found = solve_exact(absent, sums, 60)
    assert found.scale[0] == pytest.approx((z * t).sum() / ((z * z).sum() + 3), rel=1e-12)
    assert found.bias[0] == 0


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7])
def test_where_the_input_is_one_value_the_scale_stays_and_the_bias_takes_the_rest(value):
    t = np.random.default_rng(2).normal(10, 1, size=33)
    sums = pairs_of(np.full(33, value), t)
    made = replace(objective(1), scale=Term(np.array([5.0])))
    found = solve_exact(made, sums, 33)
    assert found.undetermined.tolist() == [True]
    assert found.scale[0] == 5
    assert found.bias[0] == pytest.approx(t.mean() - 5 * value, rel=1e-14)
    # A penalty on the bias makes the scale matter wherever the value is not 0.
    found = solve_exact(objective(1, bias={"l2": 1.0}), sums, 33)
    assert found.undetermined.tolist() == [value == 0]
    if value:
        assert found.scale[0] * value == pytest.approx(t.mean(), rel=1e-13)
        assert abs(found.bias[0]) < 1e-12


def test_a_cell_without_pairs_keeps_its_start():
    z = np.array([[1.0, 2, 3], [np.nan] * 3])
    made = replace(objective(2), scale=Term(np.array([1.0, 3.0])), bias=Term(np.array([0.0, 4])))
    found = solve_exact(made, pairs_of(z, 2 * z + 1), 3)
    assert found.scale.tolist() == pytest.approx([2, 3])
    assert found.bias.tolist() == pytest.approx([1, 4])
    assert found.undetermined.tolist() == [False, True]


BOUND = st.one_of(st.none(), st.floats(-3, 3, allow_nan=False).map(lambda v: round(v, 2)))


@given(
    seed=st.integers(0, 10_000),
    bounds=st.tuples(BOUND, BOUND, BOUND, BOUND),
    l2=st.tuples(*[st.sampled_from([0.0, 0.5, 20.0])] * 2),
    constant=st.sampled_from([None, None, 0.0, 0.7]),
)
def test_bounds_are_solved_as_by_brute_force(seed, bounds, l2, constant):
    (s_low, s_high), (b_low, b_high) = (
        sorted((-inf if low is None else low, inf if high is None else high))
        for low, high in (bounds[:2], bounds[2:])
    )
    random = np.random.default_rng(seed)
    z = random.normal(random.normal(), 1, size=12)
    if constant is not None:
        z[:] = constant
    t = random.normal(0, 3) * z + random.normal(0, 3) + random.normal(size=12)
    made = objective(
        1,
        scale={"low": s_low, "high": s_high, "l2": l2[0]},
        bias={"low": b_low, "high": b_high, "l2": l2[1]},
    )
    sums = pairs_of(z, t)
    found = solve_exact(made, sums, 12)
    s, b = float(found.scale[0]), float(found.bias[0])
    assert s_low <= s <= s_high
    assert b_low <= b <= b_high

    def loss(s: np.ndarray, b: np.ndarray) -> np.ndarray:
        error = np.square(np.multiply.outer(s, z) + np.asarray(b)[..., None] - t).sum(-1)
        return error + l2[0] * np.square(s) + l2[1] * np.square(b)

    own = float(loss(np.array(s), np.array(b)))
    assert own == pytest.approx(made.loss(sums, 12, found.scale, found.bias), rel=1e-9, abs=1e-9)
    # The problem is convex: no point of the box nearby may be better, nor one far away.
    for reach in (1e-3, 0.1, 10.0):
        grid_s = np.clip(s + np.linspace(-reach, reach, 41), s_low, s_high)
        grid_b = np.clip(b + np.linspace(-reach, reach, 41), b_low, b_high)
        every = loss(*np.meshgrid(grid_s, grid_b))
        assert own <= every.min() + 1e-9 * (1 + own)


@pytest.mark.parametrize("fixed", ["scale", "bias"])
@pytest.mark.parametrize("present", [True, False])
def test_bounds_of_the_one_term_that_is_learned(fixed: str, present: bool):
    random = np.random.default_rng(6)
    z = random.normal(0.5, 1, size=50)
    t = 3 * z + 8
    free = {"scale": "bias", "bias": "scale"}[fixed]
    for low, high in ((-1.0, 2.0), (-9.0, 0.5), (20.0, 30.0)):
        made = objective(
            1, **{fixed: {"learned": False, "present": present}, free: {"low": low, "high": high}}
        )
        found = solve_exact(made, pairs_of(z, t), 50)
        grid = np.linspace(low, high, 2001)
        start = float(getattr(made, fixed).start[0])
        s, b = (grid, start) if free == "scale" else (start, grid)
        losses = np.square(np.multiply.outer(s, z) + np.reshape(b, (-1, 1)) - t).sum(-1)
        assert getattr(found, free)[0] == pytest.approx(
            grid[losses.argmin()], abs=(high - low) / 2000
        )
        assert getattr(found, fixed)[0] == start


def test_bounds_are_not_clipped_afterwards():
    z = np.array([1.0, 2, 3, 4])
    t = -2 * z + 10
    made = objective(1, scale={"low": 0.0}, bias={"low": 0.0})
    found = solve_exact(made, pairs_of(z, t), 4)
    assert (found.scale[0], found.bias[0]) == (0, t.mean())  # clipping would give 0 and 10


def test_the_loss_of_each_convention():
    random = np.random.default_rng(4)
    z, t = random.normal(size=(2, 3, 20))
    s, b = np.array([1.0, -2, 0.5]), np.array([0.0, 1, 3])
    square = np.square(s[:, None] * z + b[:, None] - t).sum()
    sums = pairs_of(z, t)
    assert squared_error(sums, s, b).sum() == pytest.approx(square, rel=1e-13)
    data = {"sum": square, "keras": square / 60, "torch": square / 60, "matlab": square / 8}
    for convention, expected in data.items():
        made = objective(3, convention, scale={"l2": 0.5, "l1": 2.0}, bias={"l2": 0.25})
        half = 0.5 if convention in ("torch", "matlab") else 1.0
        penalty = half * (0.5 * (s**2).sum() + 0.25 * (b**2).sum()) + 2 * np.abs(s).sum()
        assert made.loss(sums, 4, s, b) == pytest.approx(expected + penalty, rel=1e-13)


def test_sums_that_teach_nothing_are_refused():
    nothing = pairs_of(np.array([np.nan, 1]), np.array([1, np.nan]))
    with pytest.raises(DataPolicyError, match="no pair of two finite values"):
        require_learnable(nothing, "omit", "a and b")
    some = pairs_of(np.array([1.0, 2, np.nan]), np.array([1.0, 2, 3]))
    require_learnable(some, "omit", "a and b")
    with pytest.raises(DataPolicyError, match=r"1 pairs with a NaN.* 1 of 1 cells NaN"):
        require_learnable(some, "propagate", "a and b")
    with pytest.raises(DataPolicyError, match="1 pairs"):
        require_learnable(some, "error", "a and b")
    with pytest.raises(DataPolicyError, match="leave float64"):
        require_learnable(pairs_of(np.array([1.0, -1]), np.array([1e200, -1e200])), "omit", "a")
