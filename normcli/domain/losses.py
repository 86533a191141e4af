"""Results that the element type of an output cannot hold, counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from normcli.domain.dtypes import is_float

# Of the magnitude of 64-bit integers. A normalized value is rounded by 2**-53 of itself, and so are
# the steps of the way back: data on the limits come back beyond them by less than this, and are
# what they were once they are clipped.
ROUNDING = 2.0**-50


@dataclass(frozen=True)
class Losses:
    """How many results became something else on their way into the output.

    Attributes
    ----------
    clipped : int
        Results beyond the limits of an integer type, which became the nearer limit.
    nan : int
        NaN that became 0 in an integer type.
    overflowed : int
        Results of finite elements beyond the limits of a floating-point type, which became
        infinite.
    """

    clipped: int = 0
    nan: int = 0
    overflowed: int = 0

    def __add__(self, other: Losses) -> Losses:
        return Losses(
            self.clipped + other.clipped,
            self.nan + other.nan,
            self.overflowed + other.overflowed,
        )

    def __bool__(self) -> bool:
        return bool(self.clipped or self.nan or self.overflowed)

    def as_dict(self) -> dict[str, int]:
        """Return the counts by their names."""
        return asdict(self)

    def words(self, dtype: np.dtype) -> str:
        """Return the counts and what they are, as the end of ``the block holds ...``.

        Parameters
        ----------
        dtype : numpy.dtype
            Type of the output.
        """
        told = []
        if self.clipped:
            told.append(f"{self.clipped} values beyond {dtype} ({_limits(dtype)})")
        if self.nan:
            told.append(f"{self.nan} NaN, which {dtype} does not have")
        if self.overflowed:
            told.append(f"{self.overflowed} finite values that are infinite in {dtype}")
        return " and ".join(told)


NO_LOSSES = Losses()


def limits(dtype: np.dtype) -> tuple[int, int]:
    """Return the least and the largest value of an integer type, or of bool."""
    if dtype.kind == "b":
        return 0, 1
    found = np.iinfo(dtype)
    return int(found.min), int(found.max)


def _limits(dtype: np.dtype) -> str:
    assert not is_float(dtype)
    low, high = limits(dtype)
    return f"{low} to {high}"
