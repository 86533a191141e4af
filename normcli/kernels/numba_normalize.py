"""Measuring and normalizing a block in one compiled walk, where its groups are runs of memory.

Measured first and normalized afterwards, a block comes from memory twice. The formula between both
steps is that of `Recipe.fold`, in Python and for all groups at once; the walk, which needs it group
by group, has a copy of it. What the copy found is held against the fold, bit by bit, before the
block is handed over; where they differ the block is normalized by what the fold says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.transform import Normalizer, Transform, forward
from normcli.kernels.normalizing import Recipe
from normcli.kernels.numba_groups import (
    CENTER,
    FLOOR,
    INSIDE,
    OUTSIDE,
    RMS,
    STD,
    ZSCORE,
    normalize_groups,
)
from normcli.kernels.numba_spread import MOST
from normcli.kernels.numba_sums import new_group, widths_of
from normcli.kernels.numba_transform import SHORT, transform
from normcli.kernels.numpy_tiles import flat_tables
from normcli.kernels.pieces import Axis, Dense, Piece, cut, merge_axes, region_shape

METHODS = {"zscore": ZSCORE, "std": STD, "rms": RMS, "center": CENTER}
PLACEMENTS = {"inside": INSIDE, "outside": OUTSIDE, "floor": FLOOR}
TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def normalize(
    values: np.ndarray, recipe: Recipe, start: tuple[int, ...]
) -> tuple[Moments, np.ndarray] | None:
    """Return moments and the normalized block, or None where it takes two walks.

    Both have the bits of `finish` after `measure`, and of `transform`.

    Raises
    ------
    NormcliError
        Whatever `recipe.fold` does.
    """
    if values.dtype not in TYPES or recipe.dtype not in TYPES or not values.flags.c_contiguous:
        return None
    if recipe.spec.method not in METHODS:
        return None
    block = Dense.of(values)
    groups = _groups(block, recipe, start)
    if groups is None:
        return None
    out = block.empty_like(recipe.dtype)
    moments, used = _walk(block, out, groups, recipe, start)
    wanted = recipe.fold(moments)
    if _same(used, wanted):
        return moments, out.values
    steps = forward(wanted, recipe.affine)
    return moments, transform(values, steps, recipe.geometry, start, recipe.dtype)


@dataclass(frozen=True)
class _Groups:
    """Groups that follow each other in memory; see `normalize_groups`."""

    extents: tuple[int, int, int]
    places: np.ndarray
    steps: tuple[int, int]


def _groups(block: Dense, recipe: Recipe, start: tuple[int, ...]) -> _Groups | None:
    """Return the groups of a block, or None where they are no runs of memory, or not as suited."""
    pieces = cut(block, recipe.geometry, start)
    if len(pieces) != 1:
        return None
    return _groups_of(pieces[0], recipe.affine.scale is None and recipe.affine.bias is None)


# Few, since `places` takes up to a 32nd of the block.
@lru_cache(maxsize=4)
def _groups_of(piece: Piece, alone: bool) -> _Groups | None:
    """Return the groups of a piece, `alone` without scale and bias."""
    axes = list(piece.axes)
    if alone:
        axes = merge_axes([replace(axis, scale=0) for axis in axes])
    kept = [axis for axis in axes if axis.kept]
    inside = [axis for axis in axes if not axis.kept]
    if not _in_order(axes, kept) or not 1 <= len(inside) <= 2:
        return None
    rows, row = inside if len(inside) == 2 else (Axis(1, 0, 0, 0, False), inside[0])
    # Shorter rows are joined by the transform, which rounds otherwise then.
    if row.extent < SHORT or row.scale > 1 or rows.extent * row.extent > MOST:
        return None
    places = np.full(1, piece.scale, np.int64)
    for axis in kept:
        steps = axis.scale * np.arange(axis.extent, dtype=np.int64)
        places = (places[:, np.newaxis] + steps).reshape(-1)
    return _Groups((places.size, rows.extent, row.extent), places, (rows.scale, row.scale))


def _in_order(axes: list[Axis], kept: list[Axis]) -> bool:
    """Whether the kept axes are outermost, and meet the groups in the order of the statistics."""
    step = 1
    for axis in reversed(kept):
        if axis.group != step:
            return False
        step *= axis.extent
    return axes[: len(kept)] == kept


def _walk(
    block: Dense, out: Dense, groups: _Groups, recipe: Recipe, start: tuple[int, ...]
) -> tuple[Moments, tuple[np.ndarray, np.ndarray]]:
    """Return moments of the block and what it was normalized with."""
    count = groups.extents[0]
    number, bad = np.empty(count, np.int64), np.empty(count, np.int64)
    low, high, mean, m2, center, factor = np.empty((6, count))
    widths = widths_of(block.flat.dtype, None)
    few, many = (new_group(w, block.flat.dtype) for w in (widths[0], widths[-1]))
    room = widths[-1]
    flat = block.flat.view()
    flat.flags.writeable = False
    scale_and_bias = Transform(None, None, recipe.affine.scale, recipe.affine.bias)
    tables = flat_tables(scale_and_bias, recipe.geometry, block.values.shape, start)
    size = next((table.size for table in tables[2:] if table is not None), 1)
    normalize_groups(
        flat,
        out.flat,
        groups.extents,
        (number, bad, low, high, mean, m2),
        few,
        many,
        (
            np.empty(room.total + 1, np.int64),
            np.empty(max(2 * room.total + 2, room.squares + 3) + 4, np.int64),
        ),
        _formula(recipe.spec, recipe.source),
        center,
        factor,
        np.ones(size) if tables[2] is None else tables[2],
        np.zeros(size) if tables[3] is None else tables[3],
        groups.places,
        groups.steps,
        1.0,
    )
    shape = region_shape(recipe.geometry, block.values.shape, start)
    found = (number, mean, m2, low, high, bad)
    return Moments(*(each.reshape(shape) for each in found)), (center, factor)


def _formula(spec: NormSpec, dtype: np.dtype) -> tuple[int | float, ...]:
    info = np.finfo(dtype)
    return (
        METHODS[spec.method],
        PLACEMENTS[spec.placement],
        spec.ddof,
        int(spec.nonfinite == "propagate"),
        int(spec.convention is None),
        info.nmant + 1,
        float(info.smallest_subnormal),
        float(spec.epsilon),
    )


def _same(used: tuple[np.ndarray, np.ndarray], wanted: Normalizer) -> bool:
    """Whether the block was normalized with the numbers of the fold, by their bits."""
    for got, want in zip(used, (wanted.center, wanted.factor), strict=True):
        flat = np.ascontiguousarray(want, np.float64).reshape(-1)
        # Any NaN makes a group NaN.
        if not np.array_equal(got.view(np.int64), flat.view(np.int64)) and np.any(
            (got.view(np.int64) != flat.view(np.int64)) & ~(np.isnan(got) & np.isnan(flat))
        ):
            return False
    return True
