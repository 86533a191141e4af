"""Which kernels run: NumPy for small data, compiled ones for the rest.

The NumPy kernels are the reference. The compiled ones need numba, whose import is paid only when
they are asked for; where numba cannot be used the NumPy kernels take its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.errors import UsageError
from normcli.kernels.normalizing import Recipe, not_in_one_walk

NAMES = ("numpy", "numba")
# Below this, numba costs more than it saves: importing it and its cached kernels takes 0.45 s (and
# compiling them 6 s, once), while NumPy measures 0.8 GB/s and transforms 3 GB/s on two cores.
SMALL = 256 << 20

_log = logging.getLogger(__name__)

Measure = Callable[[np.ndarray, Geometry, tuple[int, ...]], ExactMoments]
Finish = Callable[[ExactMoments], Moments]
Apply = Callable[..., np.ndarray]
Normalize = Callable[[np.ndarray, Recipe, tuple[int, ...]], tuple[Moments, np.ndarray] | None]


@dataclass(frozen=True)
class Kernels:
    """The only loops over elements.

    Attributes
    ----------
    name : {"numpy", "numba"}
        The implementation.
    measure : callable
        ``measure(values, geometry, start) -> ExactMoments`` of the extents of
        ``geometry.region(start, stop)``. Every implementation returns the same numbers.
    finish : callable
        ``finish(exact) -> Moments``, correctly rounded.
    transform : callable
        ``transform(values, transform, geometry, start, dtype, losses=None) -> ndarray``, dense,
        in the memory order of `values`; counts of what an integer type cannot hold are appended
        to the list `losses`.
    normalize : callable
        ``normalize(values, recipe, start) -> (Moments, ndarray) or None``: a block of whole groups
        normalized by its own statistics in one walk, with the bits of the other three one after
        the other; None where it takes these.
    """

    name: str
    measure: Measure
    finish: Finish
    transform: Apply
    normalize: Normalize


def kernels(name: str) -> Kernels:
    """Return one implementation; NumPy's in place of numba's where numba does not work.

    Raises
    ------
    UsageError
        When there is no implementation of this name.
    """
    if name not in NAMES:
        raise UsageError(f"There are no kernels {name!r}.", f"Choose from {', '.join(NAMES)}.")
    return _numba() if name == "numba" else _numpy()


def choose(nbytes: int) -> str:
    """Return the name of the kernels that finish this many bytes first."""
    return "numpy" if nbytes < SMALL else "numba"


@cache
def _numpy() -> Kernels:
    from normcli.kernels import numpy_tiles

    return Kernels(
        "numpy",
        numpy_tiles.measure,
        ExactMoments.finish,
        numpy_tiles.transform,
        not_in_one_walk,
    )


@cache
def _numba() -> Kernels:
    reference = _numpy()
    try:
        from normcli.kernels import (
            numba_finish,
            numba_measure,
            numba_normalize,
            numba_transform,
        )
    except Exception as error:  # numba fails in many ways, none of which may stop normcli
        _log.info("numba cannot be used (%s); normcli takes the slower NumPy kernels", error)
        return reference
    return Kernels(
        "numba",
        _Guarded(numba_measure.measure, reference.measure),
        _Guarded(numba_finish.finish, reference.finish),
        _Guarded(numba_transform.transform, reference.transform),
        _Guarded(numba_normalize.normalize, reference.normalize),
    )


@dataclass(frozen=True)
class _Guarded:
    """A compiled kernel whose place the reference takes once it cannot be compiled.

    numba keeps what it compiles on disk, and a full disk ends the call with an OSError.
    """

    compiled: Callable[..., Any]
    reference: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        if self.compiled not in _given_up:
            try:
                return self.compiled(*arguments)
            except OSError as error:
                _log.info("numba cannot keep its kernels (%s); NumPy takes their place", error)
                _given_up.add(self.compiled)
        return self.reference(*arguments)


_given_up: set[Callable[..., Any]] = set()
