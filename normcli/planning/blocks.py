"""How large the blocks are, and along which axes they are cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import lcm, prod

from normcli.domain.array_info import ArrayInfo
from normcli.planning.memory import MIB

# Large enough that scheduling one (150 us in dask) costs 1 % of reading it at 1 GB/s, small
# enough that several fit into the cache that cores share.
TARGET_BYTES = 16 * MIB

# Where neither side has chunks: what two workers have just read is still in a cache of 32 MiB when
# it is measured. Reading and measuring 512 MiB ran at 13.6 GB/s with 8 MiB and 10.7 with 16.
CONTIGUOUS_BYTES = 8 * MIB

# Runs of storage that are read at nearly full speed, where a block cannot be one run: as many bytes
# where the block has few of them, and no fewer than the least.
RUN_BYTES = 256 * 1024
LEAST_RUN_BYTES = 32 * 1024


def storage_order(info: ArrayInfo) -> tuple[int, ...]:
    """Return the axes from the one that varies fastest in storage to the slowest."""
    axes = tuple(range(info.ndim))
    return axes if info.fortran_order else axes[::-1]


def unit_shape(
    info: ArrayInfo,
    multiples: Iterable[tuple[int, ...] | None],
    whole: Iterable[int] = (),
) -> tuple[int, ...]:
    """Return the smallest block that respects every multiple and is whole along some axes.

    Parameters
    ----------
    info : ArrayInfo
        The array.
    multiples : iterable of tuple of int or None
        Extents that a block must be a multiple of: chunks, segments.
    whole : iterable of int
        Axes along which a block must not be cut.
    """
    unit = [1] * info.ndim
    for extents in multiples:
        if extents is not None:
            unit = [lcm(u, e) for u, e in zip(unit, extents, strict=True)]
    whole = set(whole)
    return tuple(
        n if axis in whole else min(u, n)
        for axis, (u, n) in enumerate(zip(unit, info.shape, strict=True))
    )


def grow(
    info: ArrayInfo,
    unit: tuple[int, ...],
    target_bytes: int = TARGET_BYTES,
    first: Collection[int] = (),
) -> tuple[int, ...]:
    """Return a block of whole units of about `target_bytes`, as contiguous as storage allows.

    Axes grow from the fastest to the slowest in storage, those in `first` before all others; the
    first one that cannot become whole ends the growth, so that a block is one run of storage or as
    few runs as possible.
    """
    block = list(unit)
    size = prod(unit) * info.dtype.itemsize
    for axis in sorted(storage_order(info), key=lambda axis: axis not in first):
        extent = info.shape[axis]
        if block[axis] >= extent:
            continue
        factor = max(1, target_bytes // size)
        grown = min(extent, unit[axis] * factor)
        size = size // block[axis] * grown
        block[axis] = grown
        if grown < extent:
            break
    return tuple(block)


def shrink(
    info: ArrayInfo, block: tuple[int, ...], keep: Iterable[int], limit_bytes: int
) -> tuple[int, ...]:
    """Return a block cut along free axes, slowest in storage first, to at most `limit_bytes`.

    Axes in `keep` stay as they are; the result may still be larger where nothing is left to cut.
    """
    keep = set(keep)
    result = list(block)
    for axis in reversed(storage_order(info)):
        size = prod(result) * info.dtype.itemsize
        if size <= limit_bytes:
            break
        if axis not in keep:
            result[axis] = max(1, result[axis] * limit_bytes // size)
    return tuple(result)


def lengthen(
    info: ArrayInfo, unit: tuple[int, ...], axis: int, target_bytes: int
) -> tuple[int, ...]:
    """Return a block of whole units along one axis, of about `target_bytes`."""
    size = prod(unit) * info.dtype.itemsize
    extent = min(info.shape[axis], unit[axis] * max(1, target_bytes // size))
    return tuple(extent if a == axis else n for a, n in enumerate(unit))
