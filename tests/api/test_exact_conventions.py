"""Wolfram's and MATLAB's layers, which do not run here, by their formulas in exact arithmetic.

Means, variances and moving averages are fractions, without any rounding; the root is taken with 60
digits. What normcli gives in float64 is compared with that.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest

import normcli

mpmath.mp.dps = 60
SIZES = [4, 4, 1]

# Epsilon, momentum as the weight of the old value, and the axes of layer normalization in NCHW.
SYSTEMS = {
    "wolfram": (Fraction(1, 1000), Fraction(9, 10), (2, 3)),
    "matlab": (Fraction(1, 100000), Fraction(9, 10), (1, 2, 3)),
}


def draw(dtype: str) -> np.ndarray:
    return (np.random.default_rng(3).normal(5, 2, (9, 2, 3, 2)) * [[[1.0]], [[7.0]]]).astype(dtype)


def exact(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance (divisor n) of each slice, as fractions, with axes kept as 1."""
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
    means, variances = [], []
    for row in moved.reshape(-1, int(np.prod([x.shape[a] for a in axes]))):
        values = [Fraction(float(v)) for v in row]
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((v - mean) ** 2 for v in values) / len(values))
    return tuple(np.array(found, object).reshape(shape) for found in (means, variances))


def real(number: Fraction) -> mpmath.mpf:
    return mpmath.mpf(number.numerator) / number.denominator


def normalized(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: Fraction) -> list:
    """Return every element by the formula, with 60 digits."""
    flat = []
    for value, m, v in np.broadcast(x, mean, variance):
        flat.append(real(Fraction(float(value)) - m) / mpmath.sqrt(real(v + epsilon)))
    return flat


def agrees(made: np.ndarray, truth: list, tolerance: float = 1e-14) -> None:
    for ours, theirs in zip(made.reshape(-1).tolist(), truth, strict=True):
        # The mean is kept in float64, so an element near it is off by a unit of the mean.
        assert abs(ours - theirs) <= tolerance * (1 + abs(theirs)), (ours, theirs)


def apply(folder, x: np.ndarray, **options: object) -> np.ndarray:
    np.save(folder / "x.npy", x)
    normcli.apply(
        folder / "x.npy",
        folder / "y.npy",
        layout="NCHW",
        overwrite=True,
        dtype="float64",
        **options,
    )
    return np.load(folder / "y.npy")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_layers_that_measure_each_observation(tmp_path, system, dtype):
    epsilon, _, layer = SYSTEMS[system]
    x = draw(dtype)
    for options, axes in (({"mode": "instance"}, (2, 3)), ({"mode": "layer"}, layer)):
        made = apply(tmp_path, x, convention=system, **options)
        agrees(made, normalized(x, *exact(x, axes), epsilon))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_batch_normalization(tmp_path, system, dtype):
    epsilon, old, _ = SYSTEMS[system]
    x = draw(dtype)
    edges = list(itertools.accumulate(SIZES, initial=0))
    batches = [x[a:b] for a, b in itertools.pairwise(edges)]
    each = [exact(batch, (0, 2, 3)) for batch in batches]
    trained = apply(tmp_path, x, convention=system, training=True, batch_size=4)
    truth = [
        value
        for batch, found in zip(batches, each, strict=True)
        for value in normalized(batch, *found, epsilon)
    ]
    agrees(trained, truth)
    mean, variance = Fraction(0), Fraction(1)
    for m, v in each:
        mean, variance = old * mean + (1 - old) * m, old * variance + (1 - old) * v
    fitted = normcli.fit(tmp_path / "x.npy", layout="NCHW", convention=system, batch_size=4)
    agrees(fitted.moving_mean, [real(m) for m in np.ravel(mean)])
    agrees(fitted.moving_variance, [real(v) for v in np.ravel(variance)])
    agrees(apply(tmp_path, x, stats=fitted), normalized(x, mean, variance, epsilon))
    pooled = apply(tmp_path, x, stats=fitted, estimate="pooled")
    agrees(pooled, normalized(x, *exact(x, (0, 2, 3)), epsilon))
