"""Which moments cannot be normalized with; they are refused before anything is written."""

from __future__ import annotations

import numpy as np

from normcli.domain.constancy import constant_groups
from normcli.domain.far_powers import LARGEST_P
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingStatistics
from normcli.domain.norm_moments import NormMoments, largest_magnitude
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments, WideQuantileMoments
from normcli.domain.wide_moments import (
    SQUARE_ROOT_OF_SMALLEST,
    WideMoments,
    squares_surely_fit,
)
from normcli.domain.wide_moving import too_small
from normcli.errors import DataPolicyError


def require_usable(moments: Moments, spec: NormSpec, dtype: np.dtype, where: str) -> None:
    """Refuse moments that cannot be normalized with, before anything is written.

    Raises
    ------
    DataPolicyError
        For non-finite values under ``--nonfinite error``, ddof with one element, and values
        whose mean or squares leave float64 at either end.
    """
    bad = int(moments.nonfinite.sum())
    if spec.nonfinite == "error" and bad:
        groups = int(np.count_nonzero(moments.nonfinite))
        raise DataPolicyError(
            f"{where} holds {bad} NaN or infinite values in {groups} of {moments.count.size} "
            "groups.",
            "--nonfinite omit leaves them out of the statistics.",
        )
    if spec.ddof and np.any(moments.count == 1):
        raise DataPolicyError(
            f"{where} has groups of one element, whose variance with divisor n - 1 is undefined.",
            "Use --ddof 0, or aggregate more axes.",
        )
    if isinstance(moments, NormMoments):
        _require_powers_fit(moments, where)
    elif not isinstance(moments, QuantileMoments):
        # Norms and quantiles fit where squares do not.
        _require_squares_fit(moments, spec, dtype, where)


def _require_powers_fit(moments: NormMoments, where: str) -> None:
    """Refuse norms that leave float64, and magnitudes whose powers of a very large p do."""
    lost = (moments.count > 0) & ~np.isfinite(moments.norm)
    if not np.any(lost):
        return
    largest = float(largest_magnitude(moments)[lost].max())
    if LARGEST_P < moments.p < np.inf:
        raise DataPolicyError(
            f"{where} holds a group of values up to {largest:.3g}, whose powers of {moments.p:g} "
            "leave float64.",
            f"A p of {LARGEST_P:g} at most takes all magnitudes; --p inf is near where p is large.",
        )
    raise DataPolicyError(
        f"{where} holds groups of values up to {largest:.3g}, whose norms leave float64.",
        "Store the array in larger units, for example divided by a power of two.",
    )


def _require_squares_fit(moments: Moments, spec: NormSpec, dtype: np.dtype, where: str) -> None:
    """Refuse magnitudes whose squares overflow or underflow float64, so that nothing is lost."""
    if isinstance(moments, WideMoments):
        _require_centered_fit(moments, spec, where)
        return
    if squares_surely_fit(moments):
        return
    seen = moments.count > 0
    low = np.where(seen, moments.minimum, 0.0)
    high = np.where(seen, moments.maximum, 0.0)
    largest = np.maximum(np.abs(low), np.abs(high))
    finite = np.isfinite(moments.mean) & np.isfinite(moments.m2)
    size = largest
    if spec.method == "rms":
        finite &= np.isfinite(np.where(seen, moments.mean_square(), 0.0))
    elif spec.method != "maxabs":
        with np.errstate(over="ignore"):
            size = np.where(constant_groups(moments, dtype), 0.0, high - low)
    if not np.all(finite):
        raise DataPolicyError(
            f"{where} holds values up to {float(largest[~finite].max()):.3g}, whose squares leave "
            "float64.",
            "Store the array in larger units, for example divided by a power of two.",
        )
    lost = (size > 0) & (size < SQUARE_ROOT_OF_SMALLEST)
    if np.any(lost) and spec.method != "center":
        raise DataPolicyError(
            f"{where} holds a group that spreads over {float(size[lost].min()):.3g} only, whose "
            "square leaves float64.",
            "Store the array in smaller units, for example multiplied by a power of two.",
        )


def _require_centered_fit(moments: WideMoments, spec: NormSpec, where: str) -> None:
    """Refuse data whose differences from their mean leave float64, where these are the result."""
    if spec.method != "center":
        return
    seen = moments.count > 0
    with np.errstate(over="ignore", invalid="ignore"):
        farthest = np.maximum(moments.maximum - moments.mean, moments.mean - moments.minimum)
    if not np.all(np.isfinite(farthest[seen])):
        raise DataPolicyError(
            f"{where} holds values whose differences from their mean leave float64.",
            "Store the array in larger units, for example divided by a power of two.",
        )


def require_moving_usable(
    moving: MovingStatistics, moments: Moments, spec: NormSpec, where: str
) -> None:
    """Refuse moving statistics that cannot be normalized with.

    Raises
    ------
    DataPolicyError
        When differences from the moving mean are the result and leave float64, or when the moving
        variance has become too small to be kept, for data that had one.
    """
    if spec.method == "center":
        seen = moments.count > 0
        with np.errstate(over="ignore", invalid="ignore"):
            farthest = np.maximum(moments.maximum - moving.mean, moving.mean - moments.minimum)
        if np.any(np.isinf(farthest[seen])):
            raise DataPolicyError(
                f"{where} holds values whose differences from their moving mean leave float64.",
                "Store the array in larger units, for example divided by a power of two.",
            )
    if moving.beyond is None or spec.method == "center":
        return
    lost = too_small(moving.variance, moving.beyond, spec.method)
    if np.any(lost):
        raise DataPolicyError(
            f"The moving variance of {int(np.count_nonzero(lost))} of {lost.size} groups of "
            f"{where} has become smaller than any that is kept, beside its mean.",
            "Leave --momentum and --batch-size out: pooled statistics are exact. A --momentum "
            "nearer to 1 forgets more slowly.",
        )


def require_resolved(
    moments: Moments,
    dtype: np.dtype,
    where: str,
    spec: NormSpec | None = None,
    hint: str | None = None,
) -> None:
    """Refuse to normalize integers beyond 2**53 by statistics that float64 cannot tell apart.

    Their mean and variance are right. But what the rounding of the mean took away must be known
    (`WideMoments`), or else it hurts where it reaches the spread; of extremes, where they were
    measured for ``minmax``; and of quantiles, unless they are among the outermost integers.

    Parameters
    ----------
    moments : Moments
        Of the integers; plain ones where a mean is subtracted that was rounded.
    dtype : numpy.dtype
        Type of what is normalized.
    where : str
        Its name, for the message.
    spec : NormSpec, optional
        The method; without it, something is subtracted.
    hint : str, optional
        What helps, where that is not the usual.

    Raises
    ------
    DataPolicyError
        When it does.
    """
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        return
    method = None if spec is None else spec.method
    if method in ("std", "rms", "maxabs", "lp"):
        return  # A quotient is as right as its terms, which are rounded to 53 bits.
    seen = moments.count > 1
    if isinstance(moments, WideQuantileMoments):
        seen = seen & ~moments.known
    elif isinstance(moments, WideMoments):
        if method != "minmax":
            return
        seen = seen & np.isnan(moments.minimum_rest + moments.maximum_rest)
    largest = np.where(seen, np.maximum(np.abs(moments.minimum), np.abs(moments.maximum)), 0.0)
    deviation = np.sqrt(np.where(seen, moments.variance(), 1.0))
    lost = (largest > 2.0**53) & (np.spacing(largest) > 1e-6 * deviation)
    if np.any(lost):
        raise DataPolicyError(
            f"{where} holds integers up to {float(largest.max()):.6g}, beyond 2**53, with a "
            "spread too small for float64.",
            hint
            or "Subtract an integer offset before normalizing; statistics fitted by this version, "
            "or by apply itself, need none"
            + (" below 9.2e18 (uint64: 1.84e19)." if method == "robust" else "."),
        )
