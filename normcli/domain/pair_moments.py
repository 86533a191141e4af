"""Mergeable sums over pairs of a normalized and a target element: all that learning needs.

With z the normalized input and t the target, the squared error of ``s z + b`` over a set of pairs
is a function of n, mean(z), mean(t), sum((z - mean)^2), sum((t - mean)^2) and
sum((z - mean)(t - mean)) alone. They are merged as `Moments` are (Chan, Golub and LeVeque, 1979),
with the means in two parts, so that no merge costs digits where a target lies far from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from normcli.domain.error_free import two_sum


@dataclass(frozen=True)
class PairMoments:
    """Sums over the pairs of each cell; all arrays have the same shape, one entry for each cell.

    Attributes
    ----------
    count : ndarray of int64
        Pairs of two finite elements.
    mean, mean_tail : ndarray of float64
        Mean of the normalized elements, as a sum of two parts; 0 where count is 0.
    target_mean, target_tail : ndarray of float64
        Mean of the targets, likewise.
    m2, target_m2 : ndarray of float64
        Sums of squared deviations from these means.
    product : ndarray of float64
        Sum of the products of both deviations.
    skipped : ndarray of int64
        Pairs with an element that is NaN or infinite, which are in none of the others.
    """

    count: np.ndarray
    mean: np.ndarray
    mean_tail: np.ndarray
    target_mean: np.ndarray
    target_tail: np.ndarray
    m2: np.ndarray
    target_m2: np.ndarray
    product: np.ndarray
    skipped: np.ndarray

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> PairMoments:
        """Return the sums over nothing, which change nothing that they are merged with."""
        integers = ("count", "skipped")
        return cls(
            *(np.zeros(shape, np.int64 if f.name in integers else np.float64) for f in fields(cls))
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of every array."""
        return self.count.shape

    def __getitem__(self, index: Any) -> PairMoments:
        """Return the sums of some of the cells."""
        return PairMoments(*(getattr(self, f.name)[index] for f in fields(self)))

    def store(self, index: Any, part: PairMoments) -> None:
        """Put the sums of some cells in place, in arrays that this object owns."""
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(part, f.name)

    def reshape(self, shape: tuple[int, ...]) -> PairMoments:
        """Return the same sums with every array in another shape."""
        return PairMoments(*(getattr(self, f.name).reshape(shape) for f in fields(self)))

    def merge(self, other: PairMoments) -> PairMoments:
        """Return the sums over the union of two disjoint sets of pairs."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        weight = self.count * share
        with np.errstate(over="ignore", invalid="ignore"):
            delta = (other.mean - self.mean) + (other.mean_tail - self.mean_tail)
            target_delta = (other.target_mean - self.target_mean) + (
                other.target_tail - self.target_tail
            )
            mean, mean_tail = sum_and_rest(self.mean, self.mean_tail + delta * share)
            target, target_tail = sum_and_rest(
                self.target_mean, self.target_tail + target_delta * share
            )
            m2 = self.m2 + other.m2 + delta * delta * weight
            target_m2 = self.target_m2 + other.target_m2 + target_delta * target_delta * weight
            product = self.product + other.product + delta * target_delta * weight
        alone, absent = other.count == 0, self.count == 0

        def chosen(name: str, both: np.ndarray) -> np.ndarray:
            own, their = getattr(self, name), getattr(other, name)
            return np.where(alone, own, np.where(absent, their, both))

        return PairMoments(
            count,
            chosen("mean", mean),
            chosen("mean_tail", mean_tail),
            chosen("target_mean", target),
            chosen("target_tail", target_tail),
            chosen("m2", m2),
            chosen("target_m2", target_m2),
            chosen("product", product),
            self.skipped + other.skipped,
        )

    def fold(self, axis: int) -> PairMoments:
        """Return the sums merged along one axis, pairwise in an order fixed by its extent."""
        level = PairMoments(*(np.moveaxis(getattr(self, f.name), axis, 0) for f in fields(self)))
        while level.shape[0] > 1:
            pairs = level.shape[0] // 2
            merged = level[0 : 2 * pairs : 2].merge(level[1 : 2 * pairs : 2])
            if level.shape[0] % 2:
                last = level[-1:]
                merged = PairMoments(
                    *(
                        np.concatenate([getattr(merged, f.name), getattr(last, f.name)])
                        for f in fields(self)
                    )
                )
            level = merged
        return level[0] if level.shape[0] else PairMoments.identity(level.shape[1:])

    def whole(self) -> tuple[int, int]:
        """Return the pairs and the skipped pairs of all cells together."""
        return int(self.count.sum()), int(self.skipped.sum())


def sum_and_rest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded sum and what its rounding took away; 0 for a sum that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total, rest = two_sum(a, b)
    return total, np.where(np.isfinite(rest), rest, 0.0)
