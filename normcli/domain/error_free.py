"""Sums and products of float64 with what their roundings take away, which is a float64 number.

Ogita, Rump and Oishi (2005), "Accurate sum and dot product", algorithms 3.1 and 3.3: both results
together are the exact sum or product.
"""

from __future__ import annotations

import numpy as np

# Veltkamp: a number times this, less what rounding made of it, has its upper 26 bits.
_SPLITTER = 2.0**27 + 1


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a sum and what its rounding took away, which is exact.

    Knuth (1969): for any order of magnitudes, as long as nothing overflows.
    """
    total = a + b
    kept = total - a
    return total, (a - (total - kept)) + (b - kept)


def two_product(
    a: np.ndarray | float, b: np.ndarray | float
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return a product and what its rounding took away.

    Dekker (1971): exact for factors below 2**996 whose product is 0 or above 2**-969; below it
    falls short by a subnormal number.
    """
    product = a * b
    high_a, low_a = _split(a)
    high_b, low_b = _split(b)
    # Products of halves have 52 bits, and each difference is exact.
    rest = low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)
    return product, rest


def _split(a: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray | float]:
    wide = _SPLITTER * a
    high = wide - (wide - a)
    return high, a - high
