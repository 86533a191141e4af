"""Whether the numbers of a sidecar can belong together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from normcli.bundles.bundle import Bundle
from normcli.bundles.exact_sums import EXACT_NAMES, exact_from_arrays
from normcli.bundles.statistics_bundle import statistics_from_bundle
from normcli.domain.moments import Moments
from normcli.errors import InputError

# Roundings of one mean over many merges stay far below this.
_ROUNDING = 1e-6
# How the arrays that are there for readers follow from the others.
_RULES = {"variance": "m2 / (count - ddof)", "spread": "upper - lower"}


def inconsistencies(bundle: Bundle, path: str) -> Iterator[str]:
    """Yield what cannot be true of statistics that were measured.

    Raises
    ------
    InputError
        When arrays are missing or malformed.
    DataPolicyError
        When a variance is negative.
    """
    # The sums come last, because they tell only that something else is wrong, not what.
    others = {name: values for name, values in bundle.arrays.items() if name not in EXACT_NAMES}
    statistics = statistics_from_bundle(Bundle(others, bundle.attrs), path)
    moments = statistics.moments
    if moments is None:
        return
    yield from _of_moments(moments)
    for name, expected in moments.derived(statistics.spec.ddof).items():
        held = bundle.arrays.get(name)
        if held is not None and not np.array_equal(held, expected, equal_nan=True):
            yield from _named(f"the {name} is not {_RULES[name]}", held != expected)
    try:
        exact_from_arrays(bundle.arrays, moments, path)
    except InputError as error:
        yield error.message.removeprefix(f"{path}: ")


def _of_moments(moments: Moments) -> Iterator[str]:
    seen = moments.count > 0
    yield from _named("a count is negative", (moments.count < 0) | (moments.nonfinite < 0))
    low, high = moments.minimum, moments.maximum
    with np.errstate(invalid="ignore", over="ignore"):
        spread = np.where(seen, high - low, 0.0)
        slack = _ROUNDING * (np.abs(moments.mean) + np.where(seen, np.abs(spread), 0.0))
        outside = (moments.mean < low - slack) | (moments.mean > high + slack)
        # Popoviciu: no variance exceeds a quarter of the squared spread.
        most = moments.count * spread * spread / 4
        wide = moments.m2 > most * (1 + _ROUNDING) + slack * slack
    yield from _named("a mean is not between its minimum and its maximum", seen & outside)
    yield from _named("a variance is larger than minimum and maximum allow", seen & wide)
    infinite = ~(np.isfinite(low) & np.isfinite(high) & np.isfinite(moments.mean))
    yield from _named("a value is not finite", seen & infinite)


def _named(what: str, bad: np.ndarray) -> Iterator[str]:
    places = np.flatnonzero(bad)
    if len(places):
        first = tuple(int(i) for i in np.unravel_index(places[0], bad.shape))
        where = f"group {', '.join(map(str, first))}" if first else "the only group"
        yield f"{what} in {len(places)} of {bad.size} groups, first in {where}"
