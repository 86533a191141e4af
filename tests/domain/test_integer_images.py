"""Numbers that stand for 64-bit integers: in the same order, and taken back to the last unit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.domain.integer_images import are_images, images_of, integers_of
from normcli.domain.interpolation import between, between_integers

# From here on, counted from 0, integers share images in pairs.
PAIRS = {"i8": (-(2**63) + 2**54 - 1, 2**63 - 2**54), "u8": (-1, 2**64 - 2**55)}


def near_everything(dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    places = {0, limits.min, limits.max, *PAIRS[dtype]}
    places |= {sign * 2**bit for bit in range(64) for sign in (-1, 1)}
    found = {place + step for place in places for step in range(-9, 10)}
    inside = sorted(value for value in found if limits.min <= value <= limits.max)
    return np.array(inside, dtype)


def assert_kept(values: np.ndarray, dtype: str) -> None:
    """`values` in ascending order."""
    images = images_of(values)
    assert images.dtype == np.float64
    assert are_images(images)
    assert np.isfinite(images).all()
    back, alone = integers_of(images, np.dtype(dtype))
    low, high = PAIRS[dtype]
    for value, found, one in zip(values.tolist(), back.tolist(), alone.tolist(), strict=True):
        assert one == (low < value < high)
        assert value - found in ((0,) if one else (0, 1))
    steps = images[1:] > images[:-1]
    both = alone[1:] & alone[:-1] & (values[1:] != values[:-1])
    assert steps[both].all()
    assert (images[1:] >= images[:-1]).all()


@pytest.mark.parametrize("dtype", PAIRS)
def test_at_every_end(dtype):
    assert_kept(near_everything(dtype), dtype)


@pytest.mark.parametrize("dtype", PAIRS)
@given(st.data())
def test_any_integers(dtype, data):
    limits = np.iinfo(dtype)
    values = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=50))
    assert_kept(np.array(sorted(values), dtype), dtype)


@pytest.mark.parametrize("dtype", PAIRS)
def test_the_library_keeps_and_orders_them(dtype):
    kll = pytest.importorskip("datasketches").kll_doubles_sketch
    values = np.unique(near_everything(dtype))
    images = images_of(values)
    sketch = kll(1 << 15)
    sketch.update(np.random.default_rng(0).permutation(images))
    assert sketch.n == len(images)
    # Every bit of every item, also once it was written and read.
    again = kll.deserialize(sketch.serialize())
    held = [image for image, _ in sorted(again)]
    assert np.array(held).tobytes() == np.sort(images).tobytes()
    assert (again.get_min_value(), again.get_max_value()) == (images[0], images[-1])


def test_where_subnormal_numbers_are_taken_for_0():
    """A library built with -ffast-math may set the processor so, for a whole thread."""
    small = np.array([0, 1, 2, -1, -2, 1 << 40], np.int64)
    assert (np.abs(images_of(small)) >= np.finfo("f8").tiny).all()
    assert not are_images(np.array([5e-324]))
    assert not are_images(np.array([0.0]))


def exactly(below: int, above: int, share: float) -> Fraction:
    return below + (above - below) * Fraction(share)


@pytest.mark.parametrize("dtype", PAIRS)
@given(st.data(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.1, 0.987]))
def test_between_two_integers(dtype, data, share):
    limits = np.iinfo(dtype)
    base = data.draw(st.integers(limits.min, limits.max))
    step = data.draw(st.integers(0, 2 ** data.draw(st.integers(1, 64))))
    other = min(base + step, limits.max)
    a, b = np.array([base], dtype), np.array([other], dtype)
    value, rest = between_integers(a, b, np.array([share]))
    want = exactly(base, other, share)
    if max(abs(base), abs(other)) <= 2**53:
        assert (value[0], rest[0]) == (between(a.astype("f8"), b.astype("f8"), share)[0], 0)
        return
    found = Fraction(float(value[0])) + Fraction(float(rest[0]))
    # Two roundings of the difference: nothing is lost of the integer itself.
    assert abs(found - want) <= Fraction(other - base) * Fraction(3, 2**53)
    assert abs(rest[0]) <= np.spacing(np.abs(value[0]))
    if share in (0.0, 0.5) and other - base < 2**52:
        assert found == want
