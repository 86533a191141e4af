"""Compiled sums over rows: the innermost axis is aggregated.

Each row is taken in tiles that fit the L1 cache, whose exact sums are added to their group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import overload

from normcli.kernels.numba_floats import add_tile
from normcli.kernels.numba_halves import DIRECT, FLOAT16, add_halves
from normcli.kernels.numba_integers import add_integers
from normcli.kernels.numba_jit import LANES, jit
from normcli.kernels.numba_splits import TILE
from normcli.kernels.numba_widen import load


def add_part(flat: Any, first: int, last: int, half: Any, scratch: Any, g: int, sums: Any) -> None:
    """Add elements of a flat block to group g, in the way that its type is best taken."""
    raise NotImplementedError("only for compiled code")


@overload(add_part)
def _add_part(
    flat: Any, first: Any, last: Any, half: Any, scratch: Any, g: Any, sums: Any
) -> Callable[..., Any]:
    if isinstance(flat.dtype, types.Integer) and isinstance(half, types.NoneType):

        def integers(
            flat: Any, first: Any, last: Any, half: Any, scratch: Any, g: Any, sums: Any
        ) -> None:
            add_integers(flat[first:last], g, sums)

        return integers

    if isinstance(half, types.Integer) and DIRECT:

        def halves(
            flat: Any, first: Any, last: Any, half: Any, scratch: Any, g: Any, sums: Any
        ) -> None:
            if half != FLOAT16 or not add_halves(flat[first:last], g, sums):
                tile, _ = load(flat, first, last, half, scratch)
                add_tile(tile, g, sums)

        return halves

    def floats(
        flat: Any, first: Any, last: Any, half: Any, scratch: Any, g: Any, sums: Any
    ) -> None:
        tile, _ = load(flat, first, last, half, scratch)
        add_tile(tile, g, sums)

    return floats


@jit(LANES, entry=True)
def rows(
    flat: Any,
    half: Any,
    scratch: Any,
    origin: int,
    shape: Any,
    strides: Any,
    steps: Any,
    length: int,
    group: int,
    sums: Any,
) -> None:
    """Add rows of `length` elements, on four outer axes, to their groups.

    `half` and `scratch` are those of `load`.
    """
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                for d in range(shape[3]):
                    at = origin + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]
                    g = group + a * steps[0] + b * steps[1] + c * steps[2] + d * steps[3]
                    for first in range(at, at + length, TILE):
                        last = min(first + TILE, at + length)
                        add_part(flat, first, last, half, scratch, g, sums)
