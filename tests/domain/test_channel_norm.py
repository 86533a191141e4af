"""What frameworks hold of each channel, against the formula itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.domain.channel_norm import ChannelNorm, channel_norm
from normcli.domain.layout import Layout
from normcli.domain.norm_spec import DIVISORS, METHODS, PLACEMENTS
from normcli.domain.presets import make_spec
from normcli.domain.statistics import SourceDescription, Statistics
from normcli.domain.transform import normalizer
from normcli.errors import DataPolicyError

CHANNELS = 5
NUMBERS = st.floats(-1e3, 1e3)
LISTS = st.lists(NUMBERS, min_size=CHANNELS, max_size=CHANNELS).map(np.array)
POSITIVE = st.lists(st.floats(1e-3, 1e3), min_size=CHANNELS, max_size=CHANNELS).map(np.array)


def of(spec, mean, variance):
    source = SourceDescription((9, CHANNELS), np.dtype("f8"))
    return Statistics(spec, source, None, given=(mean, variance))


# A mean and a variance hold no extremes.
BY_MEAN = [method for method in METHODS if method not in DIVISORS]


@given(LISTS, POSITIVE, LISTS, st.sampled_from(BY_MEAN), st.sampled_from(PLACEMENTS))
def test_every_method_and_placement_is_one_formula(mean, variance, x, method, placement):
    spec = make_spec(Layout("NC"), np.dtype("f8"), method=method, placement=placement, epsilon=0.25)
    norm = channel_norm(of(spec, mean, variance))
    table = normalizer(spec, mean, variance, np.zeros(CHANNELS, bool))
    want = (x - table.center) * table.factor
    got = (x - norm.mean) / np.sqrt(norm.variance + norm.epsilon)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-9)


@given(LISTS, POSITIVE, POSITIVE, LISTS, LISTS, st.booleans())
def test_folding_changes_no_number(mean, variance, scale, bias, x, negative):
    scale = -scale if negative else scale
    norm = ChannelNorm(mean, variance, 0.125, scale, bias)
    shift, divisor = norm.folded("it")
    want = (x - mean) / np.sqrt(variance + 0.125) * scale + bias
    size = np.abs(x) + np.abs(mean) + np.abs(bias * divisor)
    np.testing.assert_array_less(
        np.abs((x - shift) / divisor - want), 1e-14 * (size / np.abs(divisor) + 1)
    )


def test_a_scale_of_zero_is_not_folded():
    ones = np.ones(2)
    with pytest.raises(DataPolicyError, match="1 of 2 scales are 0"):
        ChannelNorm(ones, ones, 0.0, np.array([0.0, 1])).folded("it")


def test_constant_channels_get_a_scale_of_zero():
    variance = np.array([0.0, 4])
    norm = ChannelNorm(
        np.ones(2), variance, 0.0, bias=np.array([3.0, 0]), constant=np.array([True, False])
    ).with_scale()
    y = (np.array([7.0, 7]) - norm.mean) / norm.deviation * norm.scale + norm.bias
    assert y.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("mean", "variance"), [(1e300, 1.0), (0.0, 1e300), (1e8 + 1, 1e-3)])
def test_numbers_that_float32_cannot_hold(mean, variance):
    norm = ChannelNorm(np.array([mean]), np.array([variance]), 0.0)
    with pytest.raises(DataPolicyError, match="In float32"):
        norm.rounding(np.dtype(np.float32))
    assert norm.rounding(np.dtype(np.float64)) == 0


def test_axes_that_no_framework_has():
    for options in ({"mode": "instance"}, {"mode": "custom", "aggregate": "all"}):
        spec = make_spec(Layout("NCHW"), np.dtype("f8"), **options)
        with pytest.raises(DataPolicyError, match="one set of numbers for each channel"):
            channel_norm(of(spec, np.ones(3), np.ones(3)))
