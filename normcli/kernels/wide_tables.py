"""What a transform of integers beyond 2**53, or of data that are scaled, has beside its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from normcli.domain.integer_origins import has_origins, origins
from normcli.domain.transform import Transform


@dataclass(frozen=True)
class WideTables:
    """Flat tables along the groups of a block.

    Attributes
    ----------
    origin : ndarray of int64 or uint64, or None
        Subtracted from integers before they become float64; where inverse, added to what is
        rounded to integers.
    exponent : ndarray of int64 or None
        Elements are divided by ``2**exponent`` first; where inverse, multiplied by it at last.
    """

    origin: np.ndarray | None
    exponent: np.ndarray | None


def wide_tables(
    transform: Transform, source: np.dtype, target: np.dtype, shape: tuple[int, ...]
) -> tuple[Transform, WideTables | None]:
    """Return a transform without its origins, and these; None where there are none.

    Parameters
    ----------
    transform : Transform
        Its tables.
    source, target : numpy.dtype
        Type of the elements and of the result.
    shape : tuple of int
        Extents of the groups of the block.
    """
    if transform.rest is None and transform.exponent is None:
        return transform, None
    for table in (transform.rest, transform.exponent):
        if table is not None and table.shape != shape:
            raise ValueError(f"a table of shape {table.shape} for a block that needs {shape}")
    origin = None
    integers = target if transform.inverse else source
    if transform.rest is not None and has_origins(integers):
        center = transform.add if transform.inverse else transform.subtract
        assert center is not None, "a rest belongs to a center"
        origin, left = origins(center, transform.rest, integers)
        origin = np.ascontiguousarray(origin).reshape(-1)
        transform = (
            replace(transform, add=left) if transform.inverse else replace(transform, subtract=left)
        )
    exponent = transform.exponent
    if exponent is not None:
        exponent = np.ascontiguousarray(exponent, np.int64).reshape(-1)
    return transform, WideTables(origin, exponent)
