"""Sketches of quantiles: exact while they hold all, within their error beyond, never trusted."""

from __future__ import annotations

import builtins
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.domain import quantile_sketches
from normcli.domain.kll_image import read_image
from normcli.domain.quantile_sketches import (
    LEAST_K,
    MOST_K,
    QuantileSketches,
    between,
    merged,
    new_sketch,
    rank_error,
    sketch_bytes,
    sketch_k,
)
from normcli.errors import InputError

pytest.importorskip("datasketches")

LEVELS = (0.25, 0.75)
POINTS = (0.25, 0.5, 0.75)


def sketch(values: np.ndarray, k: int = LEAST_K) -> bytes:
    made = new_sketch(k)
    made.update(np.asarray(values, "f8"))
    return bytes(made.serialize())


def quantiles(*images: bytes) -> np.ndarray:
    held = np.empty(len(images), object)
    held[:] = images
    return np.array(QuantileSketches(held, LEVELS).quantiles())


def rank_distance(values: np.ndarray, found: np.ndarray, points=POINTS) -> float:
    """How far the ranks of `found` are from what was asked for, as a share of the elements."""
    below = np.array([(values < one).mean() for one in found])
    upto = np.array([(values <= one).mean() for one in found])
    # One element is what interpolation between two of them spans.
    gap = np.maximum(np.maximum(below - points, points - upto), 0) - 1 / len(values)
    return float(np.max(gap))


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1)
)
def test_small_groups_have_the_quantiles_of_numpy(values, low, high):
    x = np.array(values) + 0.0
    held = np.array([sketch(x)], object)
    found = np.array(QuantileSketches(held, (low, high)).quantiles())[:, 0]
    with np.errstate(over="ignore"):
        want = np.quantile(x, [low, 0.5, high])
    np.testing.assert_array_equal(found, want)


@given(
    st.integers(1, 3 * LEAST_K),
    st.integers(1, 6),
    st.sampled_from(["normal", "ties", "sorted", "falling", "far"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_merged_in_any_cut_the_error_is_within_what_is_stated(size, pieces, kind, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size if kind == "normal" else 7 * size)
    if kind == "ties":
        x = np.round(x)
    elif kind in ("sorted", "falling"):
        x = np.sort(x) if kind == "sorted" else -np.sort(x)
    elif kind == "far":
        x = np.where(rng.random(x.size) < 0.01, x * 1e12, x)
    edges = np.sort(rng.integers(0, x.size, pieces - 1))
    union = b""
    for part in np.split(x, edges):
        union = merged(union, sketch(part) if part.size else b"")
    image = read_image(union)
    assert (image.count, image.minimum, image.maximum) == (x.size, x.min(), x.max())
    error = 0.0 if image.exact else rank_error(image.min_k)
    # In whatever cut, k elements are all kept.
    assert image.exact or x.size > LEAST_K
    # The stated error is that of 99 % of sketches; twice that is beyond the reach of chance.
    assert rank_distance(x, quantiles(union)[:, 0]) <= 2 * error


def test_the_stated_error_is_that_of_nearly_all_sketches():
    x = np.random.default_rng(3).normal(size=40_000)
    k = 64
    far = [rank_distance(x, quantiles(sketch(x, k))[:, 0]) for _ in range(300)]
    # By chance more than 12 of 300 are beyond a figure of 99 % once in a million times.
    assert sum(one > rank_error(k) for one in far) <= 12
    # And it is no idle figure: half of it would not hold.
    assert max(far) > rank_error(k) / 4


def test_an_error_and_a_size_that_follow_from_the_groups_alone():
    assert sketch_k(1) == MOST_K
    assert sketch_k(10**9) == LEAST_K
    sizes = [sketch_k(groups) for groups in range(1, 3000)]
    assert sizes == sorted(sizes, reverse=True)
    assert {k & (k - 1) for k in sizes} == {0}
    assert rank_error(MOST_K) < 1e-4
    assert rank_error(LEAST_K) < 3e-3
    rng = np.random.default_rng(1)
    for groups in (1, 30, 300):
        for size in (5, 20_000, 300_000):
            made = sketch(rng.normal(size=size), sketch_k(groups))
            assert len(made) <= sketch_bytes(groups, size)


def test_groups_without_elements():
    found = quantiles(b"", sketch([2.0]), b"")
    np.testing.assert_array_equal(found[:, 1], 2.0)
    assert np.isnan(found[:, [0, 2]]).all()
    assert merged(b"", b"") == b""
    one = QuantileSketches.identity((), LEVELS)
    assert one.merge(one).images.shape == ()


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(0, 1))
def test_between_two_elements(a, b, share):
    low, high = sorted((a, b))
    want = np.quantile(np.array([low, high]), share)
    assert between(np.array(low), np.array(high), np.array(share)) == want


def test_the_library_reads_the_same_from_its_own_bytes():
    x = np.random.default_rng(5).normal(size=100_000)
    made = new_sketch(LEAST_K)
    made.update(x)
    image = read_image(bytes(made.serialize()))
    assert (image.count, len(np.concatenate(image.levels))) == (made.n, made.num_retained)
    assert image.exact is not made.is_estimation_mode()
    pairs = sorted(made)
    weights = [(v, 1 << h) for h, level in enumerate(image.levels) for v in level.tolist()]
    assert sorted(weights) == [(value, weight) for value, weight in pairs]


def changed(data: bytes, at: int, form: str, value: object) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, value)
    return bytes(out)


BIG = sketch(np.random.default_rng(0).normal(size=20_000))
HOSTILE = {
    "nothing of a head": BIG[:5],
    "half of a head": BIG[:15],
    "cut off": BIG[:-8],
    "cut inside an element": BIG[:-3],
    "more than it has": BIG + bytes(8),
    "another family": changed(BIG, 2, "<B", 3),
    "another version": changed(BIG, 1, "<B", 9),
    "flags of an empty one": changed(BIG, 3, "<B", 1),
    "unknown flags": changed(BIG, 3, "<B", 0x40),
    "no k": changed(BIG, 4, "<H", 0),
    "another k": changed(BIG, 4, "<H", 2 * LEAST_K),
    "another m": changed(BIG, 6, "<B", 4),
    "a larger least k": changed(BIG, 16, "<H", 2 * LEAST_K),
    "no elements": changed(BIG, 8, "<Q", 0),
    "more elements": changed(BIG, 8, "<Q", 20_001),
    "endless elements": changed(BIG, 8, "<Q", 2**64 - 1),
    "no levels": changed(BIG, 18, "<B", 0),
    "endless levels": changed(BIG, 18, "<B", 255),
    "a level from far": changed(BIG, 20, "<I", 2**32 - 1),
    "levels that go back": changed(BIG, 24, "<I", 2**32 - 1),
    "an element beyond the extremes": changed(BIG, len(BIG) - 8, "<d", 1e9),
    "NaN": changed(BIG, len(BIG) - 8, "<d", float("nan")),
    "a level out of order": changed(BIG, len(BIG) - 8, "<d", -0.5),
    "one element and a half": sketch([1.0]) + b"half",
    "one element, infinite": changed(sketch([1.0]), 8, "<d", float("inf")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_bytes_that_are_no_sketch_never_reach_the_library(data, monkeypatch):
    monkeypatch.setattr(quantile_sketches, "library", lambda: pytest.fail("it was asked"))
    with pytest.raises(ValueError, match=r"^it"):
        read_image(data)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_they_are_not_merged_either(data):
    for pair in ((data, BIG), (BIG, data)):
        with pytest.raises(ValueError, match=r"^it"):
            merged(*pair)


@given(st.integers(0, len(BIG) - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_refused_or_harmless(at, value):
    data = changed(BIG, at, "<B", value)
    try:
        image = read_image(data)
    except ValueError:
        return
    # What is let through is a sketch: the library takes it, and means the same.
    theirs = quantile_sketches.library().kll_doubles_sketch.deserialize(data)
    assert theirs.n == image.count
    assert read_image(merged(data, BIG)).count == image.count + 20_000


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **more):
        if name == "datasketches":
            raise ImportError(name)
        return real(name, *arguments, **more)

    quantile_sketches.library.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="need the package datasketches") as caught:
        new_sketch(LEAST_K)
    assert caught.value.hint == "needs: pip install 'normcli[sketch]'"
    quantile_sketches.library.cache_clear()
    # What a sketch says is read without it.
    assert np.isfinite(quantiles(BIG)).all()
