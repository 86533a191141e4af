"""The bytes of a KLL sketch of doubles, as Apache DataSketches serializes it, read and checked.

The sketch of Karnin, Lang and Liberty (2016), "Optimal quantile approximation in streams", keeps
levels of elements: one of level h stands for ``2**h`` elements. Bytes that come from files are
checked here, in full, before the library's own reader (which is C++) sees them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Preamble: integers of 4 bytes in it, serial version, family, flags, k, m, nothing.
_HEAD = struct.Struct("<BBBBHBB")
# What follows in a full preamble: n, the smallest k that was merged, levels, nothing.
_REST = struct.Struct("<QHBB")
_FAMILY = 15
_FULL, _SINGLE = (5, 1), (2, 2)
_EMPTY_FLAG, _SORTED_FLAG, _SINGLE_FLAG = 1, 2, 4
# The smallest capacity of a level: the library's constant.
_M = 8
_LEAST_K = 8
_MOST_LEVELS = 61


@dataclass(frozen=True)
class KllImage:
    """A sketch of one group of elements.

    Attributes
    ----------
    k, min_k : int
        Capacity of the top level, and the smallest of all sketches that were merged into it; the
        error follows from the latter.
    count : int
        Elements that it stands for, 1 or more.
    minimum, maximum : float
        Their extremes, exact.
    levels : tuple of ndarray of float64
        The elements that were kept, by level; one of level h weighs ``2**h``.
    """

    k: int
    min_k: int
    count: int
    minimum: float
    maximum: float
    levels: tuple[np.ndarray, ...]

    @property
    def exact(self) -> bool:
        """Whether every element was kept."""
        return len(self.levels) == 1

    @cached_property
    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """Elements in ascending order, and how many elements are not above each."""
        values = np.concatenate(self.levels)
        weights = np.concatenate(
            [np.full(len(level), 1 << h, np.int64) for h, level in enumerate(self.levels)]
        )
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])

    def at(self, ranks: np.ndarray) -> np.ndarray:
        """Return the elements at ranks from 0 to ``count - 1`` in ascending order."""
        values, upto = self._ranked
        found = values[np.searchsorted(upto, ranks, side="right").clip(0, len(values) - 1)]
        # Both ends are known exactly, unlike what is next to them.
        found = np.where(ranks <= 0, self.minimum, found)
        return np.where(ranks >= self.count - 1, self.maximum, found)


def read_image(data: bytes) -> KllImage:
    """Return the sketch that bytes hold.

    Parameters
    ----------
    data : bytes
        What ``kll_doubles_sketch.serialize`` returns for one element or more.

    Raises
    ------
    ValueError
        When they are not that, to the last byte; the text says in what.
    """
    if len(data) < _HEAD.size:
        raise ValueError("it is too short")
    ints, version, family, flags, k, m, _ = _HEAD.unpack_from(data)
    if family != _FAMILY or (ints, version) not in (_FULL, _SINGLE) or m != _M or k < _LEAST_K:
        raise ValueError("it is no KLL sketch of doubles")
    single = (ints, version) == _SINGLE
    if flags & _EMPTY_FLAG or bool(flags & _SINGLE_FLAG) != single or flags > 7:
        raise ValueError("its flags do not go with its form")
    if single:
        image = _single(data, k)
    else:
        image = _full(data, k)
    _require_values(image, bool(flags & _SORTED_FLAG))
    return image


def with_items(data: bytes, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Return a sketch of other elements in the same order.

    Parameters
    ----------
    data : bytes
        A sketch, which is checked first.
    change : callable
        Makes finite float64 numbers of those that the sketch holds; never falls where they rise.
    """
    image = read_image(data)
    # Extremes are stored right before the elements; a single element is its own.
    held = 1 if len(data) == _HEAD.size + 8 else 2 + sum(map(len, image.levels))
    start = len(data) - 8 * held
    items = change(np.frombuffer(data, "<f8", held, start).astype(np.float64))
    return data[:start] + items.astype("<f8").tobytes()


def _single(data: bytes, k: int) -> KllImage:
    if len(data) != _HEAD.size + 8:
        raise ValueError(f"it has {len(data)} bytes, not those of one element")
    (value,) = struct.unpack_from("<d", data, _HEAD.size)
    return KllImage(k, k, 1, value, value, (np.array([value]),))


def _full(data: bytes, k: int) -> KllImage:
    start = _HEAD.size + _REST.size
    if len(data) < start:
        raise ValueError("it is too short")
    count, min_k, number, _ = _REST.unpack_from(data, _HEAD.size)
    if not (_LEAST_K <= min_k <= k and 1 <= number <= _MOST_LEVELS and 1 <= count < 1 << 63):
        raise ValueError("its counts are none of a sketch")
    items = start + 4 * number + 16
    if len(data) < items or (len(data) - items) % 8:
        raise ValueError("it is cut off")
    borders = np.frombuffer(data, "<u4", number, start).astype(np.int64)
    kept = (len(data) - items) // 8
    end = int(borders[0]) + kept
    borders = np.append(borders, end)
    if end != _capacity(k, number) or np.any(np.diff(borders) < 0):
        raise ValueError("its levels do not have the sizes of a sketch")
    sizes = [int(size) for size in np.diff(borders)]
    if sum(size << h for h, size in enumerate(sizes)) != count:
        raise ValueError("its elements do not stand for as many as it says")
    minimum, maximum = struct.unpack_from("<dd", data, items - 16)
    values = np.frombuffer(data, "<f8", kept, items).astype(np.float64)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return KllImage(k, min_k, count, minimum, maximum, tuple(parts))


def _require_values(image: KllImage, sorted_below: bool) -> None:
    values = np.concatenate(image.levels)
    # Comparisons with NaN are false, so NaN fails here too.
    inside = (values >= image.minimum) & (values <= image.maximum)
    if not (np.isfinite([image.minimum, image.maximum]).all() and inside.all()):
        raise ValueError("it holds values beyond its extremes")
    for level in image.levels[0 if sorted_below else 1 :]:
        if np.any(np.diff(level) < 0):
            raise ValueError("its levels are not in order")


def _capacity(k: int, number: int) -> int:
    """Return how many elements a sketch of so many levels has room for."""
    return sum(max(_M, _level(k, number - h - 1)) for h in range(number))


def _level(k: int, depth: int) -> int:
    """Return ``k * (2/3)**depth``, rounded as the library does."""
    if depth > 30:
        half = depth // 2
        return _level(_level(k, half), depth - half)
    return ((2 * k << depth) // 3**depth + 1) >> 1
