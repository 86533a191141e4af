"""A look at some blocks of an array: how many elements lie outside of known bounds.

The same blocks are looked at every time. They take bounded memory, and a bounded time unless a
single chunk takes longer.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block, Grid
from normcli.domain.moments import Moments
from normcli.kernels.select import kernels
from normcli.planning.blocks import grow, shrink, unit_shape
from normcli.planning.memory import MIB

BLOCKS = 16
BLOCK_BYTES = MIB
SECONDS = 20.0
_SEED = 0


@dataclass(frozen=True)
class SampledBlock:
    """One block that was looked at.

    Attributes
    ----------
    index : tuple of slice
        The groups it touches, as an index into the statistics.
    moments : Moments
        Of its elements, for each of these groups.
    block : Block
        Its place.
    values : ndarray
        Its elements.
    """

    index: tuple[slice, ...]
    moments: Moments
    block: Block
    values: np.ndarray


def sample_grid(info: ArrayInfo) -> Grid:
    """Return the blocks that a sample is drawn from: whole chunks, or parts of large ones."""
    unit = unit_shape(info, [info.chunks])
    block = shrink(info, grow(info, unit, BLOCK_BYTES), (), BLOCK_BYTES)
    return Grid(info.shape, block)


def sample_numbers(grid: Grid, blocks: int) -> list[int]:
    """Return the numbers of the blocks to look at: one of each of `blocks` equal runs of all."""
    count = len(grid)
    if count <= blocks:
        return list(range(count))
    random = np.random.default_rng(_SEED)
    edges = [count * i // blocks for i in range(blocks + 1)]
    return [int(random.integers(a, b)) for a, b in itertools.pairwise(edges)]


def sampled(source: ArraySource, geometry: Geometry) -> Iterator[SampledBlock]:
    """Read a sample of an array, one block at a time; a slow storage ends it early."""
    compute = kernels("numpy")
    grid = sample_grid(source.info)
    end = time.monotonic() + SECONDS
    for position, number in enumerate(sample_numbers(grid, BLOCKS)):
        if position and time.monotonic() > end:
            return
        block = grid.block(number)
        values = source.read(block)
        moments = compute.finish(compute.measure(values, geometry, block.start))
        yield SampledBlock(geometry.region(block.start, block.stop), moments, block, values)


def count_outside(
    found: SampledBlock, geometry: Geometry, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Count the finite elements of a block below `low` or above `high`, for each group.

    Parameters
    ----------
    found : SampledBlock
        The block.
    geometry : Geometry
        Which group each element belongs to.
    low, high : ndarray of float64
        Bounds of the groups of the block, with the extents of its region.

    Returns
    -------
    ndarray of int64
        With the same extents.
    """
    block, values = found.block, found.values.astype(np.float64)
    places = []
    for axis, s in zip(geometry.kept, found.index, strict=True):
        groups = np.arange(block.start[axis], block.stop[axis]) // geometry.segments[axis]
        places.append(groups - s.start)
    kept = np.ix_(*places) if places else ()
    extents = tuple(n if axis in geometry.kept else 1 for axis, n in enumerate(found.values.shape))
    outside = (values < low[kept].reshape(extents)) | (values > high[kept].reshape(extents))
    outside &= np.isfinite(values)
    counts = np.asarray(outside.sum(axis=geometry.aggregated, dtype=np.int64))
    for position, groups in enumerate(places):
        counts = np.add.reduceat(counts, np.flatnonzero(np.diff(groups, prepend=-1)), position)
    return counts
