"""Data that float64 does not hold, and what becomes of them in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

random = np.random.default_rng(5)
LAYOUT = "NCS"
SHAPE = (12, 4, 30)
# Nanoseconds since 1970; both ends of both types; and differences wider than 64 bits.
INTEGERS = {
    "i8": (17 * 10**17, -(2**63), 2**63 - 1000, 5),
    "u8": (17 * 10**17, 2**63 - 500, 2**64 - 1000, 0),
}
SCALES = (5e-324, 1e-310, 1e-200, 1.7e305)
MODES = {
    "batch": ({}, (0, 2)),
    "instance": ({"mode": "instance"}, (2,)),
    "layer": ({"mode": "layer", "aggregate": "1,2"}, (1, 2)),
    "group": ({"mode": "group", "groups": 2}, None),
}


def integers(dtype: str, wide: bool = False) -> np.ndarray:
    x = np.empty(SHAPE, dtype)
    for channel, base in enumerate(INTEGERS[dtype]):
        steps = random.integers(0, 1000, (SHAPE[0], SHAPE[2])).tolist()
        x[:, channel] = np.array([[base + step for step in row] for row in steps], dtype)
    if wide:
        x[0, 3, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return x


def floats() -> np.ndarray:
    x = random.integers(-1000, 1000, SHAPE).astype("f8")
    for channel, scale in enumerate(SCALES):
        x[:, channel] *= scale
    return x


def root(value: Fraction) -> Fraction:
    """Return the square root to float64's precision, of any magnitude."""
    power = 0
    while value >= 2**100:
        value, power = value / 4**50, power + 50
    while value < 1:
        value, power = value * 4**50, power - 50
    return Fraction(math.sqrt(value)) * Fraction(2) ** power


def groups(x: np.ndarray, mode: str):
    """Yield where the elements of each group are."""
    places = np.arange(x.size).reshape(x.shape)
    if MODES[mode][1] is None:
        for row in places:
            yield from (row[:2].ravel(), row[2:].ravel())
        return
    kept = [axis for axis in range(x.ndim) if axis not in MODES[mode][1]]
    moved = places.transpose([*kept, *MODES[mode][1]])
    yield from moved.reshape(math.prod(x.shape[axis] for axis in kept), -1)


def exactly(x: np.ndarray, mode: str, method: str = "zscore", epsilon: float = 0.0) -> np.ndarray:
    """Normalize by rational numbers alone."""
    flat, out = x.reshape(-1), np.empty(x.size)
    for places in groups(x, mode):
        values = [Fraction(value) for value in flat[places].tolist()]
        mean = sum(values) / len(values)
        center = mean if method == "zscore" else 0
        power = sum((v - (0 if method == "rms" else mean)) ** 2 for v in values) / len(values)
        divisor = root(power + Fraction(epsilon))
        out[places] = [float((value - center) / divisor) for value in values]
    return out.reshape(x.shape)
