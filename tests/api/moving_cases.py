"""Moving statistics in rational numbers alone, whatever their magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from .wide_cases import root


@dataclass(frozen=True)
class Exact:
    """A moving mean and variance of each channel."""

    mean: list[Fraction]
    variance: list[Fraction]


def cuts(extent: int, sizes: Sequence[int]) -> list[slice]:
    """Return the batches of an axis; the last size repeats."""
    ends, k = [0], 0
    while ends[-1] < extent:
        ends.append(min(ends[-1] + sizes[min(k, len(sizes) - 1)], extent))
        k += 1
    return [slice(a, b) for a, b in pairwise(ends)]


def moments(values: list[Fraction], ddof: int = 0) -> tuple[Fraction, Fraction]:
    """Return mean and variance."""
    mean = sum(values, Fraction(0)) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / (len(values) - ddof)


def _finite(part: np.ndarray) -> list[Fraction]:
    return [Fraction(v) for v in part.ravel().tolist() if v == v and abs(v) != float("inf")]


def moving(
    x: np.ndarray,
    momentum: float | None,
    sizes: Sequence[int],
    start: str | Exact = "zeros-ones",
    ddof: int = 0,
    instances: bool = False,
) -> Exact:
    """Return the moving statistics of NCS data, with the float64 weights as they are."""
    found: tuple[list[Fraction], list[Fraction]] = ([], [])
    for channel in range(x.shape[1]):
        mean, variance = Fraction(0), Fraction(1)
        if isinstance(start, Exact):
            mean, variance = start.mean[channel], start.variance[channel]
        begun = start != "first-batch"
        for k, cut in enumerate(cuts(len(x), sizes)):
            if instances:
                each = [moments(_finite(row), ddof) for row in x[cut, channel]]
                own = tuple(sum(v[i] for v in each) / len(each) for i in (0, 1))
            else:
                known = _finite(x[cut, channel])
                if not known:
                    continue
                own = moments(known, ddof)
            old = Fraction(k, k + 1) if momentum is None else Fraction(momentum)
            if not begun:
                old, begun = Fraction(0), True
            mean = old * mean + (1 - old) * own[0]
            variance = old * variance + (1 - old) * own[1]
        found[0].append(mean)
        found[1].append(variance)
    return Exact(*found)


def normalized(
    x: np.ndarray, by: Exact, epsilon: float = 0.0, method: str = "zscore"
) -> np.ndarray:
    """Return the exact results, rounded once."""
    out = np.empty(x.shape)
    for channel, (mean, variance) in enumerate(zip(by.mean, by.variance, strict=True)):
        center = mean if method == "zscore" else 0
        power = variance + (mean * mean if method == "rms" else 0)
        divisor = root(power + Fraction(epsilon))
        part = [_rounded((Fraction(v) - center) / divisor) for v in x[:, channel].ravel().tolist()]
        out[:, channel] = np.array(part).reshape(x[:, channel].shape)
    return out


def _rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
