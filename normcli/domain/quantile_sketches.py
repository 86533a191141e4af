"""Quantiles of more elements than fit in memory: a mergeable sketch for each group.

The sketch is KLL of Apache DataSketches. It keeps every element of a group of at most k of them, so
that quantiles are exact; of larger groups it keeps about 3 k, and the rank of a quantile is off by
no more than a stated share of the elements, with a confidence of 99 %. It halves levels by drawing
random bits, which its library gives no way to seed: two runs over such a group agree within that
error, not to the last bit.

Sketches of 64-bit integers hold numbers that stand for them (`integer_images`), so that nothing is
rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcli.domain.integer_images import are_images, images_of, integers_of
from normcli.domain.interpolation import between, between_integers
from normcli.domain.kll_image import KllImage, read_image, with_items
from normcli.errors import missing_package

# Elements that a sketch keeps of every one of its levels, over its k: 2.6 to 3.1 measured.
KEPT_PER_K = 3.25
# Capacities of sketches: for one group, and for very many.
MOST_K, LEAST_K = 1 << 15, 1 << 10
# Capacity of the sketches of all groups together, as far as the least one allows: 2 to 6 MiB.
_TOTAL_K = 1 << 18
# Beside its elements a sketch takes a header, and an object in memory.
_OVERHEAD = 512
# Integers up to this are float64 numbers.
_LARGEST_EXACT = 2.0**53


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
    dtype : numpy.dtype or None
        int64 or uint64, whose elements are held as `images_of`; None where they are held as
        float64 numbers.
    """

    images: np.ndarray
    levels: tuple[float, float]
    dtype: np.dtype | None = None

    @classmethod
    def identity(
        cls, shape: tuple[int, ...], levels: tuple[float, float], dtype: np.dtype | None = None
    ) -> QuantileSketches:
        """Return the sketches of nothing."""
        return cls(np.full(shape, b"", object), levels, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all sketches together."""
        return sum(len(image) for image in self.images.flat)

    def __getitem__(self, index: Any) -> QuantileSketches:
        """Return the sketches of some of the groups."""
        return QuantileSketches(_objects(self.images[index]), self.levels, self.dtype)

    def store(self, index: Any, part: QuantileSketches) -> None:
        """Put the sketches of some groups in place, in an array that this object owns."""
        assert self.dtype == part.dtype, "sketches of one array hold one kind of items"
        self.images[index] = part.images

    def merge(self, other: QuantileSketches) -> QuantileSketches:
        """Return the sketches of the union of two disjoint sets of elements.

        Where an earlier version rounded the integers of one side, those of the other are rounded
        too.
        """
        own = self
        if own.dtype != other.dtype:
            dtype = own.dtype or other.dtype
            assert dtype is not None
            own, other = own.of_integers(dtype), other.of_integers(dtype)
            if own.dtype != other.dtype:
                own, other = own.of_floats(), other.of_floats()
        return QuantileSketches(_objects(_merged(own.images, other.images)), own.levels, own.dtype)

    def of_integers(self, dtype: np.dtype) -> QuantileSketches:
        """Return the same of integers of a type, unless rounding may have taken something away."""
        if self.dtype is not None or not self.within_exact():
            return self

        def images(numbers: np.ndarray) -> np.ndarray:
            # Bytes from a file may say anything, and no unsigned integer is negative.
            least = 0.0 if dtype.kind == "u" else -np.inf
            return images_of(np.maximum(numbers, least).astype(dtype))

        return QuantileSketches(_mapped(self.images, images), self.levels, dtype)

    def of_floats(self) -> QuantileSketches:
        """Return the same of float64 numbers, to which integers are rounded."""
        dtype = self.dtype
        if dtype is None:
            return self

        def numbers(images: np.ndarray) -> np.ndarray:
            return integers_of(images, dtype)[0].astype(np.float64)

        return QuantileSketches(_mapped(self.images, numbers), self.levels)

    def within_exact(self) -> bool:
        """Return whether all elements are below 2**53 in magnitude, where none is rounded."""
        limits = np.array([-_LARGEST_EXACT, _LARGEST_EXACT])
        if self.dtype is not None:
            lowest = 0 if self.dtype.kind == "u" else -(1 << 53)
            limits = images_of(np.array([lowest, 1 << 53], self.dtype))
            if lowest == 0:
                limits[0] = -np.inf
        found = (read_image(image) for image in self.images.flat if image)
        return all(limits[0] < image.minimum and image.maximum < limits[1] for image in found)

    def quantiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return lower quantile, median and upper quantile of each group.

        Between two elements they are interpolated linearly, as ``numpy.nanquantile`` does by
        default; NaN for groups without elements.
        """
        lower, center, upper = self.quantiles_with_rests()[0]
        return np.asarray(lower), np.asarray(center), np.asarray(upper)

    def quantiles_with_rests(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the three quantiles of each group, and what their rounding took away.

        Returns
        -------
        found : ndarray of float64
            Lower quantile, median and upper quantile, along the first axis.
        rests : ndarray of float64 or None
            Of integers: a quantile is the sum of both. NaN where it is among the outermost
            integers, of which sketches do not tell each from the next. None for floats.
        """
        found = np.full((3, *self.images.shape), np.nan)
        rests = np.zeros_like(found)
        for place in np.ndindex(*self.images.shape):
            data: Any = self.images[place]
            if data:
                index = (slice(None), *place)
                found[index], rests[index] = _interpolated(
                    read_image(data), self.levels, self.dtype
                )
        return found, None if self.dtype is None else rests

    def rank_errors(self) -> np.ndarray:
        """Return the rank error of each group; 0 where all elements were kept."""
        found = np.zeros(self.images.shape)
        for place in np.ndindex(*self.images.shape):
            data: Any = self.images[place]
            if data:
                image = read_image(data)
                found[place] = 0.0 if image.exact else rank_error(image.min_k)
        return found


def require_images(image: KllImage) -> None:
    """Raise ValueError unless the items of a sketch may stand for integers."""
    if not are_images(np.concatenate([*image.levels, [image.minimum, image.maximum]])):
        raise ValueError("it holds numbers that stand for no integer")


def _interpolated(
    image: KllImage, levels: tuple[float, float], dtype: np.dtype | None
) -> tuple[np.ndarray, np.ndarray | float]:
    place = (image.count - 1) * np.array([levels[0], 0.5, levels[1]])
    low = np.floor(place)
    below, above = image.at(low), image.at(np.ceil(place))
    if dtype is None:
        return between(below, above, place - low), 0.0
    (first, own), (second, other) = (integers_of(items, dtype) for items in (below, above))
    found, rest = between_integers(first, second, place - low)
    return found, np.where(own & other, rest, np.nan)


def _mapped(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return sketches of other items in the same order."""
    found = np.empty(images.shape, object)
    for place in np.ndindex(*images.shape):
        data: Any = images[place]
        found[place] = with_items(data, change) if data else b""
    return found


def _objects(values: Any) -> np.ndarray:
    """Return an array of objects, also of a single one."""
    if isinstance(values, np.ndarray):
        return values
    held = np.empty((), object)
    held[()] = values
    return held
