"""Statistics with the names of their files, loaded when they are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from normcli.bundles.statistics_file import read_statistics
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.statistics import (
    Statistics,
    added,
    keeps_exact,
)
from normcli.errors import InputError


@dataclass(frozen=True)
class Named:
    """Statistics with the name of the file they came from.

    Attributes
    ----------
    path : str
        The file, or the first of several that were merged.
    statistics : Statistics
        Its content; without moments as long as it was not loaded, because those of many parts
        may outgrow memory.
    """

    path: str
    statistics: Statistics

    def loaded(self) -> Statistics:
        """Return the statistics with their moments.

        Raises
        ------
        InputError
            When the file holds none that can be merged, or was changed meanwhile.
        """
        if self.statistics.moments is not None:
            return self.statistics
        found = read_mergeable(self.path)
        if found.source != self.statistics.source or found.spec != self.statistics.spec:
            raise InputError(f"{self.path} was changed while it was merged.", "Merge again.")
        return found


def read_mergeable(path: str) -> Statistics:
    """Read statistics with moments.

    Raises
    ------
    InputError
        When the file holds none that can be merged.
    """
    statistics = read_statistics(path)
    if statistics.moving is not None:
        raise InputError(
            f"{path} holds moving statistics, which depend on the order of batches and cannot be "
            "merged.",
            "Continue them in order instead: normcli fit NEXT --update STATS",
        )
    if statistics.moments is None:
        raise InputError(
            f"{path} holds a mean and a variance without counts, which cannot be merged.",
            "Fit from the data.",
        )
    return statistics


def added_up(given: Sequence[Named]) -> Statistics:
    """Return the first with the moments of all, for the same groups."""
    first = given[0].statistics
    sides = (moments_of(named.loaded()) for named in given)
    moments, exact = added(sides, first.spec.method, first.source.dtype)
    if not keeps_exact(first.spec, moments.count.size):
        exact = None  # As a fit of everything would leave them.
    return replace(first, moments=moments, exact=exact)


def moments_of(statistics: Statistics) -> tuple[Moments, ExactMoments | None]:
    """Return the rounded moments, and the exact ones where they are kept."""
    assert statistics.moments is not None
    return statistics.moments, statistics.exact
