"""Exact integers of many groups, divided: the truth is Python's own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.domain import limbs
from tests.examples import examples


def divided(number: int, divisor: int, bit: int) -> float:
    digits = [(number >> 32 * i) & limbs.MASK for i in range(6)]
    one = np.ones(1, np.int64)
    return float(limbs.quotient(np.array([digits]), one * divisor, one * bit)[0])


# Long runs of ones are where a float of an integer is the next power of two.
NUMBERS = st.builds(
    lambda ones, zeros, less: max(0, ((1 << ones) << zeros) - less),
    st.integers(0, 128),
    st.integers(0, 60),
    st.integers(0, 1 << 12),
)


@settings(max_examples=examples(2000), deadline=None)
@given(NUMBERS, st.integers(1, 1 << 40), st.integers(-200, 200))
def test_a_quotient_is_rounded_once(number, divisor, bit):
    want = Fraction(number, divisor) * Fraction(2) ** bit
    assert divided(number, divisor, bit) == float(want)


def test_the_ends_of_unsigned_integers():
    for less in range(5000):
        assert divided(2**64 - less, 1, 0) == float(2**64 - less)
