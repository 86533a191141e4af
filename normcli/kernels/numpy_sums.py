"""Exact sums of the rows of a matrix, with NumPy.

Floats are split without loss as in `numba_splits`, whose docstring has the proof: rows are scaled
by a power of two to less than 1, and as many binades at once are summed as the units can hold.
"""

from __future__ import annotations

import numpy as np

from normcli.domain.dtypes import is_float
from normcli.domain.exact_moments import ExactMoments, Terms

# Elements whose parts sum up exactly.
RUN = 1 << 11
STEP = 42
_MASK = (1 << 32) - 1
# Veltkamp's splitter of a float64 into two of 26 bits.
_HALVES = 2.0**27 + 1


def row_moments(elements: np.ndarray) -> ExactMoments:
    """Return the exact moments of each row of a matrix of any real type."""
    if not is_float(elements.dtype):
        return _integer_moments(elements)
    with np.errstate(invalid="ignore"):  # a signaling NaN is no reason for a warning
        values = elements.astype(np.float64, order="C")
    low, high = values, values
    count = np.full(len(values), values.shape[1], np.int64)
    size = np.abs(values)
    top = size.max(axis=1)
    if not np.isfinite(top).all():
        finite = np.isfinite(values)
        low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
        values = np.where(finite, values, 0.0)
        count = np.count_nonzero(finite, axis=1).astype(np.int64)
        size = np.abs(values)
        top = size.max(axis=1)
    total: Terms = []
    squares: Terms = []
    single = elements.dtype.itemsize < 8
    reach, lowest = (19, -149 + STEP) if single else (32, -1074 + 2 * STEP)
    while True:
        power = np.maximum(np.frexp(top)[1].astype(np.int64), lowest)
        floor = np.where(power > lowest, np.ldexp(1.0, power - reach), 0.0)
        every = bool((size.min(axis=1) >= floor).all())
        part = values
        if not every:
            some = size >= floor[:, np.newaxis]
            part = np.where(some, values, 0.0)
        scaled = part * np.ldexp(1.0, -power)[:, np.newaxis]
        more_total, more_squares = _parts(scaled, single)
        total += [(value, power - STEP * step) for value, step in more_total]
        squares += [(value, 2 * power - STEP * step) for value, step in more_squares]
        if every:
            break
        values = np.where(some, 0.0, values)
        size = np.abs(values)
        top = size.max(axis=1)
        if not top.any():
            break
    return ExactMoments.of_terms(
        count,
        elements.shape[1] - count,
        # -0.0 + 0.0 is 0.0.
        low.min(axis=1) + 0.0,
        high.max(axis=1) + 0.0,
        total,
        squares,
    )


def _parts(x: np.ndarray, single: bool) -> tuple[list[tuple[np.ndarray, int]], ...]:
    """Return sums of x below 1 and of x**2, as integers and the steps of their units."""
    high, low = x * x, np.zeros(())
    if single:
        first, second = _split(high, 1)
        return [(_units(x, 1), 1)], [(_units(first, 1), 1), (_units(second, 2), 2)]
    large = x * _HALVES
    large = large - (large - x)
    small = x - large
    low = ((large * large - high) + 2 * large * small) + small * small
    first, second = _split(x, 1)
    total = [(_units(first, 1), 1), (_units(second, 2), 2)]
    squares = []
    for part, steps in ((high, (1, 2, 3)), (low, (2, 3))):
        for step in steps:
            rounded, part = _split(part, step)
            squares.append((_units(rounded, step), step))
        squares.append((_units(part, 4), 4))
    return total, squares


def _split(value: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    anchor = 1.5 * 2.0 ** (52 - STEP * step)
    rounded = (value + anchor) - anchor
    return rounded, value - rounded


def _units(parts: np.ndarray, step: int) -> np.ndarray:
    """Return the sum of each row in units of 2**(-42 * step)."""
    scale = 2.0 ** (STEP * step)
    rows, length = parts.shape
    whole = length // RUN * RUN
    units = (parts[:, whole:].sum(axis=1) * scale).astype(np.int64)
    if whole:
        runs = parts[:, :whole].reshape(rows, -1, RUN).sum(axis=2)
        units += (runs * scale).astype(np.int64).sum(axis=1)
    return units


def _integer_moments(elements: np.ndarray) -> ExactMoments:
    if elements.dtype.kind == "b":
        elements = elements.view(np.uint8)
    count = np.full(len(elements), elements.shape[1], np.int64)
    low, high = elements.min(axis=1).astype(np.float64), elements.max(axis=1).astype(np.float64)
    total: Terms
    if elements.dtype.itemsize < 8:
        values = elements.astype(np.int64)
        total = [_term(values, 0)]
        squares = _halves((values * values).view(np.uint64), 0)
    else:
        below = (elements & elements.dtype.type(_MASK)).astype(np.uint64)
        above = (elements >> elements.dtype.type(32)).astype(np.int64)
        total = [_term(below.view(np.int64), 0), _term(above, 32)]
        # x = h * 2**32 + l, so x**2 = l**2 + h * l * 2**33 + h**2 * 2**64, modulo 2**64 each.
        mixed = above.view(np.uint64) * below
        if elements.dtype.kind == "i":
            mixed = mixed.view(np.int64)
        twice = above.view(np.uint64) * above.view(np.uint64)
        squares = [*_halves(below * below, 0), *_halves(mixed, 33), *_halves(twice, 64)]
    return ExactMoments.of_terms(count, np.zeros_like(count), low, high, total, squares)


def _halves(products: np.ndarray, bit: int) -> Terms:
    """Return the sums of the lower and the upper 32 bits of products."""
    kind = products.dtype.type
    return [
        _term((products & kind(_MASK)).astype(np.int64), bit),
        _term((products >> kind(32)).astype(np.int64), bit + 32),
    ]


def _term(values: np.ndarray, bit: int) -> tuple[np.ndarray, np.ndarray]:
    sums = values.sum(axis=1)
    return sums, np.full(len(sums), bit, np.int64)
