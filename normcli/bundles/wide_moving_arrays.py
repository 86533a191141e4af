"""What float64 leaves out of moving statistics, as arrays of a sidecar that may be wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normcli.domain.wide_moving import LEAST_SCALED, MEAN_ROOM, UNITS, Beyond
from normcli.errors import InputError

MOVING_NAMES = ("moving_mean_rest", "moving_variance_scaled", "moving_exponent")
# A variance in its units may be rounded where it is subnormal in plain float64.
_ROUNDING = 1e-6
_HINT = "Fit again; the file was changed."


def moving_rests(beyond: Beyond | None) -> dict[str, np.ndarray]:
    """Return what is written of it: of integers beyond 2**53 the rests of the mean alone."""
    if beyond is None:
        return {}
    arrays = beyond.mean_rest, beyond.variance_scaled, beyond.exponent
    named = dict(zip(MOVING_NAMES, arrays, strict=True))
    return named if beyond.scaled else {MOVING_NAMES[0]: beyond.mean_rest}


def beyond_from_arrays(arrays: Mapping[str, np.ndarray], path: str) -> Beyond | None:
    """Return what a file holds of what float64 leaves out of its moving statistics.

    Parameters
    ----------
    arrays : mapping
        ``moving_mean`` and ``moving_variance``, and what there is of `MOVING_NAMES`, all of one
        shape.
    path : str
        The file, for messages.

    Raises
    ------
    InputError
        When arrays are missing, or cannot belong to this mean and variance.
    """
    rest_name, scaled_name, exponent_name = MOVING_NAMES
    units = [name for name in (scaled_name, exponent_name) if name in arrays]
    if rest_name not in arrays:
        if units:
            raise InputError(f"{path} lacks {rest_name!r}.", _HINT)
        return None
    if len(units) == 1:
        lacking = scaled_name if units == [exponent_name] else exponent_name
        raise InputError(f"{path} lacks {lacking!r}.", _HINT)
    mean, variance = arrays["moving_mean"], arrays["moving_variance"]
    found = Beyond.nothing(variance)
    rest = arrays[rest_name]
    scaled = arrays.get(scaled_name, found.variance_scaled)
    exponent = arrays.get(exponent_name, found.exponent)
    if units and not exponent.any():
        raise InputError(f"{path}: {exponent_name!r} is 0 everywhere.", _HINT)
    far = exponent != 0
    good = (exponent >= UNITS[0]) & (exponent <= UNITS[1])
    within = (mean == 0) | (np.frexp(mean)[1] <= exponent + MEAN_ROOM + 1)
    good &= ~far | (np.isfinite(mean) & within)
    _require(good, exponent_name, path)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        half = np.ldexp(np.spacing(np.abs(mean)), -exponent - 1)
        _require((np.abs(rest) <= half) | ((rest == 0) & np.isnan(mean)), rest_name, path)
        same = (scaled == variance) | (np.isnan(scaled) & np.isnan(variance))
        plain, own = np.ldexp(scaled, 2 * exponent), np.ldexp(variance, -2 * exponent)
        near = (plain == variance) | (np.abs(plain - variance) <= _ROUNDING * variance + 1e-300)
        # Beside a mean that is far larger, a variance that fits float64 may not fit its units.
        near |= np.isfinite(variance) & (np.abs(own - scaled) <= LEAST_SCALED)
        near &= np.isfinite(scaled) & (scaled >= 0) & (scaled <= 1)
    _require(np.where(far, near, same), scaled_name, path)
    return Beyond(rest, scaled, exponent)


def _require(good: np.ndarray, name: str, path: str) -> None:
    if not np.all(good):
        place = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
        raise InputError(
            f"{path}: {name!r} at index {place} does not go with the moving mean and variance.",
            _HINT,
        )
