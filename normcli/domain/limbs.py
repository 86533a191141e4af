"""Exact integers of many groups at once: digits of 32 bits in int64 limbs, lowest first.

An array of limbs of shape (..., L) stands for ``sum(limb[i] * 2**(32 * i))``. Between additions a
limb may be any int64, so that sums of digits need no carries; `carry` brings all limbs but the
highest back to [0, 2**32), and the highest then bears the sign. Additions of integers are
associative and commutative, which is all that makes statistics independent of order.
"""

from __future__ import annotations

import numpy as np

DIGIT = 32
MASK = (1 << DIGIT) - 1
# A highest limb beyond this gets another one above it, long before an int64 ends.
_FULL = 1 << 40
# Larger divisors go by Python's integers: a partial remainder and a digit must fit in an int64.
_LARGEST_DIVISOR = 1 << 31


def carry(limbs: np.ndarray) -> np.ndarray:
    """Return limbs in [0, 2**32) but for the highest; one more limb where it is needed.

    The array given is changed.
    """
    for i in range(limbs.shape[-1] - 1):
        limbs[..., i + 1] += limbs[..., i] >> DIGIT
        limbs[..., i] &= MASK
    if limbs.size and np.abs(limbs[..., -1]).max() >= _FULL:
        return carry(padded(limbs, limbs.shape[-1] + 1))
    return limbs


def padded(limbs: np.ndarray, size: int) -> np.ndarray:
    """Return the same integers in `size` limbs, no fewer than they have."""
    if limbs.shape[-1] == size:
        return limbs
    wide = np.zeros((*limbs.shape[:-1], size), np.int64)
    wide[..., : limbs.shape[-1]] = limbs
    return wide


def moved(limbs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the integers times ``2**(32 * steps)``, steps >= 0 of each group."""
    most = int(steps.max(initial=0))
    if not most:
        return limbs
    size = limbs.shape[-1]
    wide = np.zeros((*limbs.shape[:-1], size + most), np.int64)
    for step in np.unique(steps).tolist():
        where = steps == step
        part = np.zeros((int(where.sum()), size + most), np.int64)
        part[:, step : step + size] = limbs[where]
        wide[where] = part
    return wide


def shortest(limbs: np.ndarray) -> np.ndarray:
    """Return the integers in the one form with the fewest limbs that hold those of all groups.

    All limbs are in [0, 2**32) but the highest, which is in [-2**31, 2**31): two's complement.
    """
    # The second of two limbs more is 0 or -1, the sign, after a carry.
    limbs = carry(padded(limbs, limbs.shape[-1] + 2))
    while limbs.shape[-1] > 1:
        sign, below = limbs[..., -1], limbs[..., -2]
        if not np.all(sign == -(below >> (DIGIT - 1))):
            break
        limbs = limbs[..., :-1].copy()
        limbs[..., -1] += sign << DIGIT
    return limbs


def is_shortest(limbs: np.ndarray) -> bool:
    """Return whether limbs are as `shortest` leaves them, but for how many they are."""
    high, low = limbs[..., -1], limbs[..., :-1]
    half = 1 << (DIGIT - 1)
    return bool(
        np.all(low >= 0) and np.all(low <= MASK) and np.all(high >= -half) and np.all(high < half)
    )


def zeros_below(limbs: np.ndarray) -> np.ndarray:
    """Return how many of the lowest carried limbs of each integer are 0; without end for 0."""
    some = limbs != 0
    return np.where(some.any(axis=-1), some.argmax(axis=-1), _FULL)


def lowered(limbs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return carried integers divided by ``2**(32 * steps)``, whose lowest limbs are 0."""
    if not steps.any():
        return limbs
    wide = padded(limbs, limbs.shape[-1] + int(steps.max()))
    places = np.arange(limbs.shape[-1]) + steps[..., np.newaxis]
    return np.take_along_axis(wide, places, axis=-1)


def of_terms(terms: list[tuple[np.ndarray, np.ndarray]], lowest: np.ndarray) -> np.ndarray:
    """Return the limbs of sums of ``value * 2**bit``, in units of ``2**lowest``.

    Parameters
    ----------
    terms : list of (ndarray of int64, ndarray of int64)
        Values and bits of one shape; bits are `lowest` or more where the value is not 0.
    lowest : ndarray of int64
        Bit of the lowest limb of each group.
    """
    offsets = [np.where(value != 0, bit - lowest, 0) for value, bit in terms]
    size = max((int(offset.max(initial=0)) for offset in offsets), default=0) // DIGIT + 3
    limbs = np.zeros((*lowest.shape, size), np.int64)
    flat = limbs.reshape(-1, size)
    rows = np.arange(len(flat))
    for (value, _), offset in zip(terms, offsets, strict=True):
        v, o = value.reshape(-1), offset.reshape(-1)
        at, turn = o >> 5, o & 31
        flat[rows, at] += (v << turn) & MASK
        flat[rows, at + 1] += (v >> (DIGIT - turn)) & MASK
        flat[rows, at + 2] += v >> np.minimum(2 * DIGIT - turn, 63)
    return carry(limbs)


def to_integers(limbs: np.ndarray) -> list[int]:
    """Return the integers as Python's, of all groups in order."""
    flat = limbs.reshape(-1, limbs.shape[-1])
    return [sum(int(limb) << (DIGIT * i) for i, limb in enumerate(row)) for row in flat]


def digits(limbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the digits of the absolute values, all in [0, 2**32), and where they are negative."""
    wide = carry(np.concatenate([limbs, np.zeros((*limbs.shape[:-1], 1), np.int64)], axis=-1))
    negative = wide[..., -1] < 0
    wide = carry(np.where(negative[..., np.newaxis], -wide, wide))
    return wide, negative


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of digits in [0, 2**32), as limbs that may need `carry`."""
    out = np.zeros((*a.shape[:-1], a.shape[-1] + b.shape[-1]), np.int64)
    wide_a, wide_b = a.astype(np.uint64), b.astype(np.uint64)
    for i in range(a.shape[-1]):
        row = wide_a[..., i, np.newaxis] * wide_b
        out[..., i : i + b.shape[-1]] += (row & np.uint64(MASK)).astype(np.int64)
        out[..., i + 1 : i + 1 + b.shape[-1]] += (row >> np.uint64(DIGIT)).astype(np.int64)
    return out


def quotient(number: np.ndarray, divisor: np.ndarray, bit: np.ndarray) -> np.ndarray:
    """Return ``number * 2**bit / divisor`` rounded once to float64.

    Parameters
    ----------
    number : ndarray of int64
        Digits in [0, 2**32), of shape (..., L).
    divisor : ndarray of int64
        1 or more.
    bit : ndarray of int64
        Unit of the numbers.
    """
    small = np.minimum(divisor, _LARGEST_DIVISOR - 1)
    # The four highest digits that are not 0 have 97 bits or more, and divided by less than 2**31
    # 66 or more; what is below decides roundings only by whether it is 0.
    held = padded(number[..., ::-1], number.shape[-1] + 4)
    some = held != 0
    lead = some.argmax(axis=-1)
    last = held.shape[-1] - 1 - some[..., ::-1].argmax(axis=-1)
    top = np.take_along_axis(
        held, np.minimum(lead, held.shape[-1] - 4)[..., np.newaxis] + range(4), -1
    )
    sticky = some.any(axis=-1) & (last > lead + 3)
    rest = np.zeros_like(small)
    parts = []
    for i in range(4):
        here = (rest << DIGIT) | top[..., i]
        part = here // small
        rest = here - part * small
        parts.append(part.astype(np.uint64))
    sticky |= rest != 0
    width = np.uint64(DIGIT)
    high, low = (parts[0] << width) | parts[1], (parts[2] << width) | parts[3]
    # As a float, 54 leading ones and more are the next power of two, up to 2**64.
    length = np.minimum(np.frexp(high.astype(np.float64))[1].astype(np.int64), 64)
    length -= (high >> np.maximum(length - 1, 0).astype(np.uint64)) == 0
    turn = (64 - np.maximum(length, 1)).astype(np.uint64)
    # Shifts by 64 and more are undefined.
    carried = np.where(turn > 0, low >> (np.uint64(64) - np.maximum(turn, 1)), np.uint64(0))
    sticky |= (low << turn) != 0
    leading = (high << turn) | carried | sticky.astype(np.uint64)
    # `lead` counts from the highest digit; the quotient's lowest bit belongs to that of top[3].
    unit = DIGIT * (number.shape[-1] - 1 - lead - 3) + 64 - turn.astype(np.int64) + bit
    result = np.where(some.any(axis=-1), _nearest(leading, unit), 0.0)
    large = divisor >= _LARGEST_DIVISOR
    if large.any():
        result[large] = [
            rational(n << max(b, 0), d << max(-b, 0))
            for n, d, b in zip(
                to_integers(number[large]),
                divisor[large].tolist(),
                bit[large].tolist(),
                strict=True,
            )
        ]
    return result


def _nearest(leading: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return 64 leading bits times ``2**unit`` in float64; the last bit tells of all below it."""
    result = np.asarray(np.ldexp(leading.astype(np.float64), unit))
    # Of subnormal numbers fewer bits remain: rounded to 53 bits first they would be rounded twice.
    below = np.asarray(-1074 - unit)
    few = below > 11
    if few.any():
        bits, shift = np.asarray(leading)[few], below[few].clip(max=64).astype(np.uint64)
        one = np.uint64(1)
        half = one << (shift - one)
        rest = bits & (half | (half - one))
        whole = np.where(shift < 64, bits >> np.minimum(shift, 63), 0).astype(np.uint64)
        whole += (rest > half) | ((rest == half) & ((whole & one) != 0))
        result[few] = np.where(below[few] > 64, 0.0, np.ldexp(whole.astype(np.float64), -1074))
    return result


def rational(numerator: int, denominator: int) -> float:
    """Return a ratio rounded once; infinite beyond float64."""
    try:
        return numerator / denominator
    except OverflowError:
        return float("inf")
