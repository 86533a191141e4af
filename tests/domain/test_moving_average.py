"""Moving statistics against the formulas written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from normcli.domain.batch_estimate import BatchEstimate, InstanceAverage
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.errors import DataPolicyError

RNG = np.random.default_rng(11)
BATCHES = [RNG.normal(3.0, 2.0, size=(n, 2)) for n in (4, 4, 2)]


def moments_of(x: np.ndarray) -> Moments:
    finite = np.isfinite(x)
    count = finite.sum(0)
    safe = np.where(finite, x, 0.0)
    mean = np.divide(safe.sum(0), count, out=np.zeros(x.shape[1]), where=count > 0)
    m2 = np.where(finite, (safe - mean) ** 2, 0.0).sum(0)
    low = np.where(finite, x, np.inf).min(0)
    high = np.where(finite, x, -np.inf).max(0)
    return Moments(count, mean, m2, low, high, (~finite).sum(0))


def folded(rule: MovingRule, batches, nonfinite: str = "omit") -> MovingStatistics:
    moving = MovingStatistics.begin(rule, (2,))
    for batch in batches:
        moving = moving.fold(moments_of(batch), nonfinite)
    return moving


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9, 0.99, 1.0])
@pytest.mark.parametrize(("variance", "ddof"), [("biased", 0), ("unbiased", 1)])
def test_exponential(momentum, variance, ddof):
    moving = folded(MovingRule(momentum, (4,), variance), BATCHES)
    mean, var = np.zeros(2), np.ones(2)
    for batch in BATCHES:
        mean = momentum * mean + (1 - momentum) * batch.mean(0)
        var = momentum * var + (1 - momentum) * batch.var(0, ddof=ddof)
    np.testing.assert_allclose(moving.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(moving.variance, var, rtol=1e-14)
    assert moving.batches == 3


def test_momentum_one_is_frozen():
    moving = folded(MovingRule(1.0, (4,)), BATCHES)
    np.testing.assert_array_equal(moving.mean, [0.0, 0.0])
    np.testing.assert_array_equal(moving.variance, [1.0, 1.0])


@pytest.mark.parametrize(("variance", "ddof"), [("biased", 0), ("unbiased", 1)])
def test_cumulative_weighs_batches_equally(variance, ddof):
    moving = folded(MovingRule(None, (4,), variance), BATCHES)
    np.testing.assert_allclose(moving.mean, np.mean([b.mean(0) for b in BATCHES], 0), rtol=1e-14)
    expected = np.mean([b.var(0, ddof=ddof) for b in BATCHES], 0)
    np.testing.assert_allclose(moving.variance, expected, rtol=1e-14)


def test_start_from_the_first_batch():
    moving = folded(MovingRule(0.9, (4,), start="first-batch"), BATCHES)
    mean, var = BATCHES[0].mean(0), BATCHES[0].var(0)
    for batch in BATCHES[1:]:
        mean = 0.9 * mean + (1 - 0.9) * batch.mean(0)
        var = 0.9 * var + (1 - 0.9) * batch.var(0)
    np.testing.assert_allclose(moving.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(moving.variance, var, rtol=1e-14)


def test_start_from_given_values():
    rule = MovingRule(0.5, (4,), start="earlier.json")
    start = MovingStatistics(rule, np.array([10.0, 20.0]), np.array([4.0, 9.0]))
    moving = start.fold(moments_of(BATCHES[0]))
    np.testing.assert_allclose(moving.mean, 0.5 * start.mean + 0.5 * BATCHES[0].mean(0))
    np.testing.assert_allclose(moving.variance, 0.5 * start.variance + 0.5 * BATCHES[0].var(0))


def test_a_fold_leaves_the_earlier_value_alone():
    start = MovingStatistics.begin(MovingRule(0.5, (4,)), (2,))
    start.fold(moments_of(BATCHES[0]))
    np.testing.assert_array_equal(start.mean, [0.0, 0.0])
    assert start.batches == 0


def test_one_element_has_no_unbiased_variance():
    rule = MovingRule(0.9, (1,), "unbiased")
    with pytest.raises(DataPolicyError, match=r"Batch 1 .* one element") as caught:
        MovingStatistics.begin(rule, (2,)).fold(moments_of(BATCHES[0][:1]))
    assert "--moving-variance biased" in caught.value.hint
    biased = replace(rule, variance="biased")
    moving = MovingStatistics.begin(biased, (2,)).fold(moments_of(BATCHES[0][:1]))
    np.testing.assert_allclose(moving.variance, [0.9, 0.9])


def _with_nan() -> list[np.ndarray]:
    batches = [batch.copy() for batch in BATCHES]
    batches[1][0, 0] = np.nan
    batches[1][:, 1] = np.inf
    return batches


def test_nan_propagates_for_good():
    for momentum in (0.9, None):
        moving = folded(MovingRule(momentum, (4,)), _with_nan(), "propagate")
        assert np.isnan(moving.mean).all()
        assert np.isnan(moving.variance).all()


def test_nan_is_left_out():
    moving = folded(MovingRule(0.9, (4,)), _with_nan(), "omit")
    first, second, third = BATCHES[0], _with_nan()[1][1:, 0], BATCHES[2]
    mean = 0.9 * (0.9 * (0.1 * first[:, 0].mean()) + 0.1 * second.mean()) + 0.1 * third[:, 0].mean()
    assert moving.mean[0] == pytest.approx(mean, rel=1e-13)
    # A batch without any value in a group says nothing about that group.
    mean = 0.9 * (0.1 * first[:, 1].mean()) + 0.1 * third[:, 1].mean()
    var = 0.9 * (0.9 + 0.1 * first[:, 1].var()) + 0.1 * third[:, 1].var()
    assert moving.mean[1] == pytest.approx(mean, rel=1e-13)
    assert moving.variance[1] == pytest.approx(var, rel=1e-13)


def test_nothing_at_all_leaves_the_start():
    empty = np.full((4, 2), np.nan)
    moving = folded(MovingRule(0.9, (4,)), [empty, empty])
    np.testing.assert_array_equal(moving.mean, [0.0, 0.0])
    np.testing.assert_array_equal(moving.variance, [1.0, 1.0])


def test_a_group_without_values_in_the_first_batch_starts_later():
    rule = MovingRule(0.5, (2,), start="first-batch")
    moving = MovingStatistics.begin(rule, (2,))
    first = Moments(
        np.array([0, 2]),
        np.array([0.0, 3.0]),
        np.array([0.0, 2.0]),
        np.array([np.inf, 2.0]),
        np.array([-np.inf, 4.0]),
        np.array([2, 0]),
    )
    second = Moments(
        np.array([2, 2]),
        np.array([5.0, 5.0]),
        np.array([2.0, 2.0]),
        np.array([4.0, 4.0]),
        np.array([6.0, 6.0]),
        np.array([0, 0]),
    )
    after = moving.fold(first).fold(second)
    np.testing.assert_array_equal(after.mean, [5.0, 4.0])
    np.testing.assert_array_equal(after.variance, [1.0, 1.0])
    with pytest.raises(DataPolicyError, match="without a finite value"):
        MovingStatistics.begin(MovingRule(None, (2,)), (2,)).fold(first)


def estimates(values: np.ndarray, empty: np.ndarray) -> BatchEstimate:
    return BatchEstimate(values, values * 2, empty)


def test_observations_are_averaged_in_order_however_many_come_at_once():
    """The bits do not depend on blocks: 1e16 + 1 - 1e16 is 0 or 1 by the order of adding."""
    values = RNG.normal(0, 1, (3, 11, 2)) * 10.0 ** RNG.integers(-12, 16, (3, 11, 2))
    empty = RNG.random((3, 11, 2)) < 0.2
    values[empty] = np.nan
    found = []
    for sizes in ([11], [1] * 11, [4, 4, 3], [2, 9]):
        average, start = InstanceAverage(), 0
        for size in sizes:
            cut = slice(start, start + size)
            average.add(estimates(values[:, cut], empty[:, cut]), 1)
            start += size
        found.append(average.estimate())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].mean, other.mean)
        np.testing.assert_array_equal(found[0].variance, other.variance)
    seen = (~empty).sum(1)
    truth = np.nansum(np.where(empty, 0, values), axis=1) / np.maximum(seen, 1)
    np.testing.assert_allclose(found[0].mean, truth, rtol=1e-9, atol=1e-3)
    np.testing.assert_array_equal(found[0].empty, seen == 0)


def test_observations_without_a_value_do_not_count():
    rule = MovingRule(0.5, (2,), "biased", instances=True)
    moving = MovingStatistics.begin(rule, (2,))
    average = InstanceAverage()
    rows = [np.array([[1.0, 5.0], [3.0, 7.0]]), np.array([[np.nan, 2.0], [np.nan, 4.0]])]
    for row in rows:
        found = moving.estimate_of(moments_of(row))
        one = BatchEstimate(*(part[np.newaxis] for part in vars(found).values()))
        average.add(one, 0)
    moving = moving.fold_estimate(average.estimate())
    np.testing.assert_allclose(moving.mean, [0.5 * 2, 0.5 * (6 + 3) / 2])
    np.testing.assert_allclose(moving.variance, [0.5 + 0.5 * 1, 0.5 + 0.5 * 1])


def test_frozen_statistics_stay():
    for momentum in (0.5, None):
        start = folded(MovingRule(0.5, (4,)), BATCHES)
        held = replace(start, rule=MovingRule(momentum, (4,), frozen=True))
        assert held.fold(moments_of(BATCHES[0])) is held
    # A first batch is a start, not an update.
    first = folded(MovingRule(0.5, (4,), start="first-batch", frozen=True), BATCHES)
    np.testing.assert_array_equal(first.mean, moments_of(BATCHES[0]).mean)
    assert first.batches == 1
