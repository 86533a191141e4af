"""64-bit integers as float64 numbers in the same order: what sketches hold of them.

A sketch compares and keeps its items, and computes nothing from them. So it is given numbers that
stand for integers by their bits: the image of an integer v >= 0 has the bits v + 2**52, and that of
v < 0 those of -1 - v with the sign set. All are normal numbers (so that a processor that takes
subnormal ones for 0 orders them too), none is NaN, infinite or -0.0, and float64 orders them as
integers are.

There are 2**54 fewer such numbers than integers. Therefore integers of one end share an image in
pairs, of which the lower one is taken back: the 2**54 outermost at either end of int64 (beyond
+-9.205e18), and the 2**55 largest of uint64 (beyond 1.841e19).
"""

from __future__ import annotations

import numpy as np

# The bits of the smallest normal number.
_NORMAL = np.int64(1 << 52)
_SIGN = np.int64(-(1 << 63))
# From here on int64, counted from either side of 0, share images; and uint64.
_PAIRS, _UNSIGNED_PAIRS = (1 << 63) - (1 << 54), (1 << 64) - (1 << 55)
# Half of the images, which is the integer that has the image of 0 where none is negative.
_HALF = (1 << 63) - (1 << 53)


def images_of(values: np.ndarray) -> np.ndarray:
    """Return the float64 numbers that stand for int64 or uint64, in the same order."""
    if values.dtype.kind == "u":
        place = _folded(values.astype(np.uint64), np.uint64(_UNSIGNED_PAIRS))
        place -= np.uint64(_HALF)
        signed = place.view(np.int64)
        signs = signed >> np.int64(63)
        signed ^= signs
        return _with_sign(signed, signs)
    signs = values >> np.int64(63)
    return _with_sign(_folded(values ^ signs, np.int64(_PAIRS)), signs)


def integers_of(images: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the integers that images stand for, and whether each is the only one.

    Parameters
    ----------
    images : ndarray of float64
        What `images_of` returns.
    dtype : numpy.dtype
        int64 or uint64.

    Returns
    -------
    values : ndarray of `dtype`
        Of a pair the lower one.
    alone : ndarray of bool
        False where it may also be the next one.
    """
    bits = np.ascontiguousarray(images, np.float64).view(np.int64)
    size = (bits & ~_SIGN) - _NORMAL
    if dtype.kind == "u":
        place = np.where(bits < 0, ~size, size).view(np.uint64) + np.uint64(_HALF)
        first = np.uint64(_UNSIGNED_PAIRS)
        found = np.where(place < first, place, first + (place - first) * np.uint64(2))
        return found, place < first
    pairs = np.int64(_PAIRS)
    # The lower one of a pair of negative integers is the one farther out.
    outer = pairs + (size - pairs) * 2 + (bits < 0)
    size = np.where(size < pairs, size, outer)
    return np.where(bits < 0, ~size, size), size < pairs


def are_images(numbers: np.ndarray) -> bool:
    """Whether finite numbers may stand for integers: none of them is 0 or subnormal."""
    return bool(np.all(np.abs(numbers) >= np.finfo(np.float64).tiny))


def _folded(sizes: np.ndarray, first: np.int64 | np.uint64) -> np.ndarray:
    """Return sizes, of which those from `first` on share a number in pairs; in place."""
    if sizes.size and sizes.max() >= first:
        far = sizes[sizes >= first]
        sizes[sizes >= first] = first + ((far - first) >> sizes.dtype.type(1))
    return sizes


def _with_sign(sizes: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return the images of ``v ^ signs``, with signs 0 or -1; both arrays are changed."""
    sizes += _NORMAL
    signs &= _SIGN
    sizes |= signs
    return sizes.view(np.float64)
