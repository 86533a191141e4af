"""What one block costs in memory, by where it comes from and where it goes.

The factors are what the libraries hold at their peak, over the decoded block: zarr-python keeps
encoded and decoded chunks beside the block it assembles; a chunk of HDF5 is held stored, inflated
(twice, while the inflated pieces are joined) and decoded, never more than three of these at once;
NPY and streams read straight into the block. Several inputs joined as one are read part by part
beside the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import is_float
from normcli.domain.geometry import Geometry
from normcli.domain.moment_kinds import needs_extremes
from normcli.domain.norm_moments import needs_powers
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_sketches import sketch_bytes

MIB = 1024 * 1024

# Bytes of one group in Moments (six arrays of 8 bytes), and of the tables made from them.
MOMENTS_BYTES = 48
TABLE_BYTES = 40

# What a worker holds of the exact sums of a group at once: as they are measured, without the limbs
# that nothing needs, those that wait for their neighbours, and both merged.
EXACT_COPIES = 4

# Exact sums that are kept: as they grow, in their canonical form, and as they are rounded or
# written.
KEPT_COPIES = 3

# Temporaries for each worker: the tiles that kernels work in, and before them the piece that
# reading cuts small runs out of, which is of the same size.
TILE_BYTES = 4 * MIB

# One stored part of an output: its entry in the journal, and in the manifest while that is sorted
# (243 bytes of both, for keys such as c/399/499).
PART_BYTES = 256

# Cap of the HDF5 chunk cache of one open dataset.
CHUNK_CACHE_BYTES = 64 * MIB


# Sketches of a group at once: those of a worker (as they are made, those that wait for their
# neighbours in its run, and two that are merged), and those of the whole run, which wait for their
# neighbours in a tree of all tasks.
SKETCH_COPIES = 8
WAITING_COPIES = 12


@dataclass(frozen=True)
class MethodCost:
    """What a method takes beside the moments that every method measures, in bytes.

    Attributes
    ----------
    arrays : int
        For each group, once it is rounded.
    sums : int
        For each group, while it is measured: further exact sums.
    sketch : int
        For each group that is measured in pieces: one sketch.
    element : int
        For each element of a block that holds whole groups: what they are ordered in.
    worker : int
        For each worker.
    merged : bool
        Whether groups are measured in a form that is kept to be merged, also where a block holds
        them whole.
    """

    arrays: int = 0
    sums: int = 0
    sketch: int = 0
    element: int = 0
    worker: int = 0
    merged: bool = False


# Of the methods that moments are enough for.
PLAIN = MethodCost()


def method_cost(spec: NormSpec, geometry: Geometry, merged: bool, dtype: np.dtype) -> MethodCost:
    """Return what the method of `spec` takes on an array.

    Parameters
    ----------
    spec : NormSpec
        The method.
    geometry : Geometry
        Its axes on the array.
    merged : bool
        Whether statistics are kept in a form that can be merged.
    dtype : numpy.dtype
        Type of the elements.
    """
    if spec.quantiles is not None:
        sketch = sketch_bytes(geometry.group_count, geometry.group_size)
        # Elements that are ordered: a copy in float64, the ordered one, and which are finite.
        # Quantiles, their error, what they lack of integers, and the spread.
        return MethodCost(64, 0, sketch, 17, 2 * MIB, merged)
    if spec.p is not None:
        sums = exact_bytes(np.dtype(np.float64)) if needs_powers(spec.p) else 0
        return MethodCost(8, sums, worker=5 * MIB if sums else 0)
    if needs_extremes(spec.method, dtype):
        # What the rounding of both extremes took away.
        return MethodCost(16, 16)
    return PLAIN


def read_cost(info: ArrayInfo, block_shape: tuple[int, ...]) -> int:
    """Return the bytes that reading one block needs, the block included."""
    block = prod(block_shape) * info.dtype.itemsize
    parts = block if info.joined else 0
    if info.storage == "zarr":
        return parts + 2 * block + 2 * _chunk_bytes(info)
    if info.storage == "hdf5":
        return parts + block + 3 * _chunk_bytes(info)
    return parts + block


def exact_bytes(dtype: np.dtype) -> int:
    """Return the bytes of the exact sums of one group.

    Counts, extremes and the unit, and the limbs that kernels try first. A group whose elements span
    more binades than these hold takes more, at most ``8 * (5 + sum(most_limbs(dtype)))`` bytes: a
    sum of n < 2**63 elements has no more bits. That is 1,656 bytes for float64 instead of 216, and
    288 for float32 instead of 168. Planning for it would make every block of float64 that has many
    groups several times smaller, for data that hold 1e-300 beside 1e300 in one group.
    """
    if is_float(dtype):
        limbs = 8 + 14 if dtype.itemsize == 8 else 6 + 10
    else:
        limbs = 4 + 7 if dtype.itemsize == 8 else 4 + 5
    return 8 * (5 + limbs)


def cache_cost(info: ArrayInfo) -> int:
    """Return the bytes of decoded chunks that an open input keeps, for all workers together.

    The 1 MiB that HDF5 takes for any open dataset counts, as its code does, to the program.
    """
    if info.storage != "hdf5" or info.chunks is None:
        return 0
    kept = min(4 * _chunk_bytes(info), CHUNK_CACHE_BYTES)
    return kept if kept > MIB else 0


def parts_cost(info: ArrayInfo) -> int:
    """Return the bytes that are kept of the parts of an output: one for each chunk or shard.

    Of what has no chunks, each block is a part: too few to count.
    """
    unit = info.write_unit
    if unit is None or not all(unit):
        return 0
    return PART_BYTES * prod(-(-n // u) for n, u in zip(info.shape, unit, strict=True))


def write_cost(info: ArrayInfo, block_shape: tuple[int, ...]) -> int:
    """Return the bytes that writing one block needs, the block included."""
    block = prod(block_shape) * info.dtype.itemsize
    if info.storage == "zarr":
        return 2 * block + _chunk_bytes(info)
    if info.storage == "hdf5":
        # Raw, packed and with its checksum, beside the one that was written last.
        return block + 4 * _chunk_bytes(info)
    return block


def _chunk_bytes(info: ArrayInfo) -> int:
    return prod(info.chunks) * info.dtype.itemsize if info.chunks else 0
