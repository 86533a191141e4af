"""What statistics, scale and bias become: the two steps of a kernel, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from normcli.domain.affine import Affine
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.domain.transform import Transform, backward, forward, normalizer
from normcli.errors import DataPolicyError, InputError

MEAN = np.array([2.0, -1.0, 0.5])
VARIANCE = np.array([4.0, 0.25, 1e-8])
SCALE, BIAS = np.array([2.0, -3.0, 0.5]), np.array([0.1, 0.2, 0.3])
X = np.random.default_rng(2).normal(size=(6, 3)) * np.sqrt(VARIANCE) + MEAN


def spec_of(**options):
    return make_spec(Layout("NC"), np.dtype("f8"), **options)


def run(transform: Transform, x: np.ndarray) -> np.ndarray:
    """The order of the steps, as every kernel does them."""
    if transform.subtract is not None:
        x = x - transform.subtract
    if transform.factor is not None:
        x = x * transform.factor
    if transform.multiply is not None:
        x = x * transform.multiply
    return x if transform.add is None else x + transform.add


def by_hand(x, method, placement, epsilon):
    power = VARIANCE + MEAN**2 if method == "rms" else VARIANCE
    divisor = {
        "inside": np.sqrt(power + epsilon),
        "outside": np.sqrt(power) + epsilon,
        "floor": np.maximum(np.sqrt(power), epsilon),
    }[placement]
    top = x - MEAN if method in ("zscore", "center") else x
    return (top if method == "center" else top / divisor) * SCALE + BIAS


@pytest.mark.parametrize("method", ["zscore", "rms", "center", "std"])
@pytest.mark.parametrize("placement", ["inside", "outside", "floor"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.1])
def test_there_and_back(method, placement, epsilon):
    spec = spec_of(method=method, placement=placement, epsilon=epsilon)
    table = normalizer(spec, MEAN, VARIANCE, np.zeros(3, bool))
    affine = Affine(SCALE, BIAS)
    y = run(forward(table, affine), X)
    np.testing.assert_allclose(y, by_hand(X, method, placement, epsilon), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(run(backward(table, affine), y), X, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("affine", [Affine(), Affine(SCALE), Affine(None, BIAS)])
def test_absent_parts(affine):
    table = normalizer(spec_of(), MEAN, VARIANCE, np.zeros(3, bool))
    there = forward(table, affine)
    assert (there.multiply is None, there.add is None) == (
        affine.scale is None,
        affine.bias is None,
    )
    np.testing.assert_allclose(run(backward(table, affine), run(there, X)), X, rtol=1e-12)


@pytest.mark.parametrize("method", ["zscore", "std"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_a_constant_group_becomes_its_bias_and_returns(method, epsilon):
    spec = spec_of(method=method, epsilon=epsilon)
    constant = np.array([False, True, False])
    table = normalizer(spec, MEAN, np.array([4.0, 1e-30, 1.0]), constant)
    x = X.copy()
    x[:, 1] = MEAN[1]
    affine = Affine(SCALE, BIAS)
    y = run(forward(table, affine), x)
    np.testing.assert_array_equal(y[:, 1], BIAS[1])
    np.testing.assert_allclose(run(backward(table, affine), y), x, rtol=1e-12)


@pytest.mark.parametrize("placement", ["inside", "outside", "floor"])
def test_no_spread_and_no_epsilon_is_no_division(placement):
    spec = spec_of(epsilon=0.0, placement=placement)
    table = normalizer(spec, MEAN, np.zeros(3), np.zeros(3, bool))
    np.testing.assert_array_equal(table.factor, 0.0)
    np.testing.assert_array_equal(run(forward(table, Affine()), np.tile(MEAN, (2, 1))), 0.0)


def test_root_mean_square_of_a_constant_is_its_sign():
    table = normalizer(
        spec_of(method="rms", epsilon=0.0),
        np.array([3.0, -3.0, 0.0]),
        np.zeros(3),
        np.ones(3, bool),
    )
    y = run(forward(table, Affine()), np.array([[3.0, -3.0, 0.0]]))
    np.testing.assert_array_equal(y, [[1.0, -1.0, 0.0]])


def test_not_a_number_stays():
    table = normalizer(spec_of(), np.array([np.nan, 0.0, 0.0]), VARIANCE, np.zeros(3, bool))
    y = run(forward(table, Affine(np.zeros(3), BIAS)), np.array([[1.0, np.nan, 1.0]]))
    np.testing.assert_array_equal(y, [[np.nan, np.nan, BIAS[2]]])


def test_a_scale_of_zero_cannot_be_undone():
    table = normalizer(spec_of(), MEAN, VARIANCE, np.zeros(3, bool))
    affine = Affine(np.array([1.0, 0.0, 0.0]), BIAS)
    np.testing.assert_array_equal(run(forward(table, affine), X)[:, 1], BIAS[1])
    with pytest.raises(DataPolicyError, match="2 of 3 scales are 0") as caught:
        backward(table, affine)
    assert "--scale none" in caught.value.hint


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3), (1, 1, 3), (1, 1, 1, 3, 1)])
def test_axes_of_length_one_do_not_matter(shape):
    fitted = Affine(SCALE.reshape(shape), BIAS.reshape(shape)).fitted((3,), "C")
    np.testing.assert_array_equal(fitted.scale, SCALE)
    np.testing.assert_array_equal(fitted.bias, BIAS)
    assert fitted.scale.dtype == np.float64
    assert fitted.nbytes == 48


@pytest.mark.parametrize(
    ("given", "wanted"),
    [((1,), (3,)), ((), (3,)), ((2,), (3,)), ((3, 2), (2, 3)), ((3, 3), (3,)), ((3,), (3, 3))],
)
def test_nothing_is_broadcast(given, wanted):
    for affine in (Affine(np.ones(given)), Affine(None, np.ones(given))):
        with pytest.raises(InputError, match=r"has shape .* but the scale axes C have") as caught:
            affine.fitted(wanted, "C")
        assert "broadcast" in caught.value.hint


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(InputError, match="1 values that are not finite"):
        Affine(np.array([1.0, bad, 1.0])).fitted((3,), "C")


def test_scalars_and_singleton_extents():
    scalar = Affine(np.array([[2.0]])).fitted((), "none").scale
    assert (scalar.shape, float(scalar)) == ((), 2.0)
    assert Affine(np.array(2.0)).fitted((1, 1), "HW").scale.shape == (1, 1)
    assert Affine().fitted((3,), "C") == Affine()
