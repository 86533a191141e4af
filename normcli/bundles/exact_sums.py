"""Exact sums as arrays of a sidecar, and what they must be to be trusted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normcli.bundles.array_checks import to_integer
from normcli.bundles.selection import listed
from normcli.domain import limbs
from normcli.domain.exact_moments import EXPONENTS, ExactMoments, most_limbs
from normcli.domain.moments import Moments
from normcli.errors import InputError

EXACT_NAMES = ("exponent", "total", "squares")
# float64 needs the most of all types.
_MOST = dict(zip(("total", "squares"), most_limbs(np.dtype(np.float64)), strict=True))
_HINT = (
    "Fit again; or, if the statistics were changed on purpose, remove the arrays "
    f"{', '.join(EXACT_NAMES)}, which merge and --update then do without."
)


def exact_arrays(exact: ExactMoments) -> dict[str, np.ndarray]:
    """Return the arrays that a sidecar has besides those of the moments."""
    return {name: getattr(exact, name) for name in EXACT_NAMES}


def exact_from_arrays(
    arrays: Mapping[str, np.ndarray], moments: Moments, path: str
) -> ExactMoments | None:
    """Return the sums that moments were rounded from, where a file holds them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        All arrays of the file.
    moments : Moments
        What the sums must round to.
    path : str
        The file, for messages.

    Raises
    ------
    InputError
        When only some of the arrays are there, they are no sums, or they belong to other moments.
    """
    held = [name for name in EXACT_NAMES if name in arrays]
    if not held:
        return None
    if len(held) < len(EXACT_NAMES):
        missing = [name for name in EXACT_NAMES if name not in arrays]
        raise InputError(f"{path} holds {listed(held)}, but not {listed(missing)}.", _HINT)
    values = {name: to_integer(arrays[name], f"{path}: {name!r}") for name in EXACT_NAMES}
    for name in EXACT_NAMES:
        _require_form(name, values[name], moments.shape, path)
    # Adding 0 makes 0.0 of -0.0, which exact sums do not tell apart.
    exact = ExactMoments(
        moments.count,
        moments.nonfinite,
        moments.minimum + 0.0,
        moments.maximum + 0.0,
        **values,
    )
    with np.errstate(over="ignore"):  # A mean beyond float64 is none that was written.
        rounded = exact.finish()
    same = (rounded.mean == moments.mean) & (rounded.m2 == moments.m2)
    if not np.all(same):
        place = tuple(int(i) for i in np.argwhere(~same)[0])
        raise InputError(
            f"{path}: the exact sums of {same.size - int(same.sum())} of {same.size} groups do "
            f"not round to count, mean and m2, first at index {place}; the file was changed.",
            _HINT,
        )
    return exact


def _require_form(name: str, values: np.ndarray, shape: tuple[int, ...], path: str) -> None:
    """Refuse what no sums have, before arithmetic could overflow on it."""
    if name == "exponent":
        fits = values.shape == shape
        good = fits and bool(np.all((values >= EXPONENTS[0]) & (values <= EXPONENTS[1])))
    else:
        fits = values.shape[:-1] == shape and 1 <= values.shape[-1] <= _MOST[name]
        good = fits and limbs.is_shortest(values)
    if fits and name == "squares":
        good = good and bool(np.all(values[..., -1] >= 0))
    if not fits:
        raise InputError(
            f"{path}: {name!r} has shape {values.shape}, which does not go with statistics of "
            f"shape {shape}.",
            _HINT,
        )
    if not good:
        raise InputError(f"{path}: {name!r} holds numbers that no sum has.", _HINT)
