"""What float64 leaves out of moments, as arrays of a sidecar, and whether to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moment_kinds import EXTREMES
from normcli.domain.moments import Moments
from normcli.domain.quantile_moments import QUANTILE_RESTS, QuantileMoments
from normcli.domain.wide_moments import WideMoments, completed, wide
from normcli.errors import InputError

# Every magnitude of float64 is below 2**1024, and its smallest is 2**-1074.
_EXPONENTS = (-1074, 1024)
# Of moments that were merged as they are.
_ROUNDING = 1e-6
_HINT = "Fit again; the file was changed."


def with_rests(moments: Moments, arrays: Mapping[str, np.ndarray], path: str) -> Moments:
    """Return moments with what a file holds of what float64 leaves out of them.

    Raises
    ------
    InputError
        When arrays are missing, or cannot belong to these moments.
    """
    if isinstance(moments, QuantileMoments):
        return _with_quantile_rests(moments, arrays, path)
    if "mean_rest" not in arrays:
        others = ("m2_scaled", "m2_exponent", *EXTREMES, *QUANTILE_RESTS)
        if any(name in arrays for name in others):
            raise InputError(f"{path} lacks 'mean_rest'.", _HINT)
        return moments
    paired = ("m2_scaled", "m2_exponent"), EXTREMES
    if type(moments) is not Moments or any((a in arrays) != (b in arrays) for a, b in paired):
        raise InputError(f"{path} holds a 'mean_rest' that does not go with the others.", _HINT)
    found = wide(moments)
    if "m2_scaled" in arrays:
        # Of floats, whose extremes are exact.
        found = replace(found, **{name: np.zeros(moments.shape) for name in EXTREMES})
    values = {
        name: arrays.get(name, getattr(found, name))
        for name in ("mean_rest", "m2_scaled", "m2_exponent", *EXTREMES)
    }
    exponent = values["m2_exponent"]
    _require_extremes(moments, values, path)
    _require((exponent >= _EXPONENTS[0]) & (exponent <= _EXPONENTS[1]), "m2_exponent", path)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        # A rounding of the mean, in units of the exponent; twice it, where means were merged.
        unit = np.ldexp(np.spacing(np.abs(moments.mean)), -exponent)
        _require(np.abs(values["mean_rest"]) <= 2 * unit, "mean_rest", path)
        scaled = values["m2_scaled"]
        plain = np.ldexp(scaled, 2 * exponent)
        # What is close to subnormal is the same to as many bits as there are.
        near = np.abs(plain - moments.m2) <= _ROUNDING * moments.m2 + 1e-300
        same = (plain == moments.m2) | near
        # Popoviciu: no variance exceeds a quarter of the squared spread.
        spread = np.ldexp(moments.maximum, -exponent) - np.ldexp(moments.minimum, -exponent)
        most = moments.count * spread * spread / 4 * (1 + _ROUNDING)
        same &= (exponent == 0) | (scaled <= most)
    _require(np.isfinite(scaled) & (scaled >= 0) & same, "m2_scaled", path)
    held = {name: getattr(moments, name) for name in Moments.names()}
    return WideMoments(**held, **values)


def _with_quantile_rests(
    moments: QuantileMoments, arrays: Mapping[str, np.ndarray], path: str
) -> QuantileMoments:
    held = [name for name in QUANTILE_RESTS if name in arrays]
    if not held:
        return moments
    if len(held) < len(QUANTILE_RESTS):
        raise InputError(f"{path} holds {held[0]!r}, but not all of {QUANTILE_RESTS}.", _HINT)
    rests = np.stack([arrays[name] for name in QUANTILE_RESTS])
    seen = moments.count > 0
    ends = moments.lower, moments.center, moments.upper
    for rest, rounded, name in zip(rests, ends, QUANTILE_RESTS, strict=True):
        with np.errstate(invalid="ignore"):
            # A rounding; of what is within 2**53 nothing is known to be missing.
            near = np.abs(rest) <= np.spacing(np.abs(rounded))
        _require(np.isnan(rest) | (rest == 0) | (seen & near), name, path, "the quantile")
    return moments.wide(rests)


def _require_extremes(moments: Moments, values: Mapping[str, np.ndarray], path: str) -> None:
    low, high = (values[name] for name in EXTREMES)
    with np.errstate(invalid="ignore"):
        for rest, rounded, name in zip(
            (low, high), (moments.minimum, moments.maximum), EXTREMES, strict=True
        ):
            # Half a rounding, in whole numbers; NaN is not known.
            near = (np.abs(rest) <= np.spacing(np.abs(rounded)) / 2) & (rest == np.rint(rest))
            _require(np.isnan(rest) | (rest == 0) | near, name, path)
    crossed = (moments.minimum == moments.maximum) & (low > high)
    _require(~crossed, EXTREMES[0], path)


def completed_by_sums(
    moments: Moments, exact: ExactMoments, method: str, dtype: np.dtype, path: str
) -> Moments:
    """Return moments with what their exact sums say that float64 leaves out of them.

    Sidecars of earlier versions have the sums alone.

    Raises
    ------
    InputError
        When the file holds something else.
    """
    if type(moments) not in (Moments, WideMoments):
        return moments
    plain = Moments(*(getattr(moments, name) for name in Moments.names()))
    found = completed(plain, exact, method, dtype)
    if isinstance(moments, WideMoments):
        own = wide(found)
        for name in ("mean_rest", "m2_scaled", "m2_exponent"):
            _require(getattr(own, name) == getattr(moments, name), name, path)
        return moments.with_sums(found)
    return found


def _require(good: np.ndarray, name: str, path: str, other: str = "the mean and m2") -> None:
    if not np.all(good):
        place = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
        raise InputError(f"{path}: {name!r} at index {place} does not go with {other}.", _HINT)
