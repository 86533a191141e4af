"""Groups of which every result would be too small for the element type of an output."""

from __future__ import annotations

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.dtypes import is_float, smallest_normal
from normcli.domain.moments import Moments
from normcli.domain.transform import Normalizer


def smallest_result(dtype: np.dtype) -> float:
    """Return what a type resolves: its smallest normal number, or what no integer rounds to 0."""
    return smallest_normal(dtype) if is_float(dtype) else 0.5


def largest_results(
    moments: Moments, normalizer: Normalizer, affine: Affine, inverse: bool
) -> np.ndarray:
    """Return a bound of the magnitude of the results of each group.

    Parameters
    ----------
    moments : Moments
        Of the data before they were, or are, normalized.
    normalizer : Normalizer
        Made of these moments, or of others.
    affine : Affine
        Scale and bias, with what the range of a method adds.
    inverse : bool
        Whether the results are such data themselves.

    Returns
    -------
    ndarray of float64
        Infinite where a bias may be added.
    """
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    if inverse:
        return np.maximum(np.abs(low), np.abs(high))
    if affine.bias is not None and np.any(affine.bias):
        return np.full(seen.shape, np.inf)
    if normalizer.exponent is not None:
        low, high = np.ldexp(low, -normalizer.exponent), np.ldexp(high, -normalizer.exponent)
    with np.errstate(over="ignore"):
        reach = np.maximum(np.abs(low - normalizer.center), np.abs(high - normalizer.center))
        scale = 1.0 if affine.scale is None else float(np.max(np.abs(affine.scale), initial=0.0))
        return np.asarray(reach * np.abs(normalizer.factor) * scale)


def vanishing_groups(
    moments: Moments, largest: np.ndarray, dtype: np.dtype, output: np.dtype
) -> np.ndarray:
    """Return which groups an output does not resolve, though the type of their data does.

    Results among larger ones may vanish in any group: those near the mean do. Here all of them do.

    Parameters
    ----------
    moments : Moments
        Of the data.
    largest : ndarray of float64
        Bounds of the results, from `largest_results`.
    dtype, output : numpy.dtype
        Types of the data and of the output.
    """
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    finer = smallest_result(dtype) < smallest_result(output)
    resolved = finer | (np.maximum(np.abs(low), np.abs(high)) >= smallest_result(dtype))
    return np.asarray((low < high) & resolved & (largest > 0) & (largest < smallest_result(output)))
