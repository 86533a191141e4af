"""Quantiles of more elements than fit in memory: a mergeable sketch for each group.

The sketch is KLL of Apache DataSketches. It keeps every element of a group of at most k of them, so
that quantiles are exact; of larger groups it keeps about 3 k, and the rank of a quantile is off by
no more than a stated share of the elements, with a confidence of 99 %. It halves levels by drawing
random bits, which its library gives no way to seed: two runs over such a group agree within that
error, not to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcli.domain.kll_image import KllImage, read_image
from normcli.errors import missing_package

# Elements that a sketch keeps of every one of its levels, over its k: 2.6 to 3.1 measured.
KEPT_PER_K = 3.25
# Capacities of sketches: for one group, and for very many.
MOST_K, LEAST_K = 1 << 15, 1 << 10
# Capacity of the sketches of all groups together, as far as the least one allows: 2 to 6 MiB.
_TOTAL_K = 1 << 18
# Beside its elements a sketch takes a header, and an object in memory.
_OVERHEAD = 512


def sketch_k(groups: int) -> int:
    """Return the capacity k of each sketch, a power of two that depends on the groups alone.

    So the parts of one array, and later data of the same kind, have sketches of the same error.
    """
    return min(MOST_K, max(LEAST_K, 1 << max(0, (_TOTAL_K // max(1, groups)).bit_length() - 1)))


def sketch_bytes(groups: int, elements: int) -> int:
    """Return the most bytes of one sketch, where a group has so many elements."""
    return _OVERHEAD + int(8 * min(elements, KEPT_PER_K * sketch_k(groups)))


@cache
def rank_error(k: int) -> float:
    """Return by how much the rank of a quantile may be off, as a share of the elements.

    The library's own figure: 99 % of sketches are no further off at any rank, measured over
    thousands of them.
    """
    return float(library().kll_doubles_sketch.get_normalized_rank_error(k, False))


@cache
def library() -> Any:
    """Return the package that sketches come from.

    Raises
    ------
    InputError
        When it is not installed.
    """
    try:
        import datasketches
    except ImportError as error:
        what = "Quantiles of groups that are read in pieces"
        raise missing_package(what, "datasketches", "sketch", verb="need") from error
    return datasketches


def new_sketch(k: int) -> Any:
    """Return an empty sketch, to be updated with arrays of finite float64."""
    return library().kll_doubles_sketch(k)


def merged(first: bytes, second: bytes) -> bytes:
    """Return the sketch of the union of two disjoint sets of elements; ``b""`` is that of none."""
    if not (first and second):
        return first or second
    kll = library().kll_doubles_sketch
    # Checked, because the library's reader is C++ and these bytes may come from a file.
    for data in (first, second):
        read_image(data)
    union = kll.deserialize(first)
    union.merge(kll.deserialize(second))
    return bytes(union.serialize())


_merged = np.frompyfunc(merged, 2, 1)


@dataclass(frozen=True)
class QuantileSketches:
    """A sketch for each group.

    Attributes
    ----------
    images : ndarray of object
        The bytes of each sketch, with the extents of the groups; ``b""`` where a group has no
        finite element.
    levels : tuple of float
        The lower and the upper quantile that are asked for, from 0 to 1.
    """

    images: np.ndarray
    levels: tuple[float, float]

    @classmethod
    def identity(cls, shape: tuple[int, ...], levels: tuple[float, float]) -> QuantileSketches:
        """Return the sketches of nothing."""
        return cls(np.full(shape, b"", object), levels)

    @property
    def nbytes(self) -> int:
        """Bytes of all sketches together."""
        return sum(len(image) for image in self.images.flat)

    def __getitem__(self, index: Any) -> QuantileSketches:
        """Return the sketches of some of the groups."""
        return QuantileSketches(_objects(self.images[index]), self.levels)

    def store(self, index: Any, part: QuantileSketches) -> None:
        """Put the sketches of some groups in place, in an array that this object owns."""
        self.images[index] = part.images

    def merge(self, other: QuantileSketches) -> QuantileSketches:
        """Return the sketches of the union of two disjoint sets of elements."""
        return QuantileSketches(_objects(_merged(self.images, other.images)), self.levels)

    def quantiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return lower quantile, median and upper quantile of each group.

        Between two elements they are interpolated linearly, as ``numpy.nanquantile`` does by
        default; NaN for groups without elements.
        """
        found = np.full((3, *self.images.shape), np.nan)
        for place in np.ndindex(*self.images.shape):
            data: Any = self.images[place]
            if data:
                image = read_image(data)
                found[(slice(None), *place)] = _interpolated(image, self.levels)
        lower, center, upper = found
        return np.asarray(lower), np.asarray(center), np.asarray(upper)

    def rank_errors(self) -> np.ndarray:
        """Return the rank error of each group; 0 where all elements were kept."""
        found = np.zeros(self.images.shape)
        for place in np.ndindex(*self.images.shape):
            data: Any = self.images[place]
            if data:
                image = read_image(data)
                found[place] = 0.0 if image.exact else rank_error(image.min_k)
        return found


def between(below: np.ndarray, above: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return what is `share` of the way between two elements, to the bits of ``numpy.quantile``."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = above - below
        found = np.where(share >= 0.5, above - step * (1 - share), below + step * share)
        if np.any(np.isinf(step)):
            # Of opposite signs and the largest magnitudes; halves of these are exact.
            found = np.where(np.isinf(step), 2 * between(below / 2, above / 2, share), found)
    return np.asarray(np.where(share == 0, below, found))


def _interpolated(image: KllImage, levels: tuple[float, float]) -> np.ndarray:
    place = (image.count - 1) * np.array([levels[0], 0.5, levels[1]])
    low = np.floor(place)
    return between(image.at(low), image.at(np.ceil(place)), place - low)


def _objects(values: Any) -> np.ndarray:
    """Return an array of objects, also of a single one."""
    if isinstance(values, np.ndarray):
        return values
    held = np.empty((), object)
    held[()] = values
    return held
