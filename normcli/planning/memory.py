"""What one block costs in memory, by where it comes from and where it goes.

The factors are what the libraries hold at their peak, over the decoded block: zarr-python keeps
encoded and decoded chunks beside the block it assembles; HDF5 holds a chunk cache and one decoded
chunk; NPY and streams read straight into the block.
"""

from __future__ import annotations

from math import prod

from normcli.domain.array_info import ArrayInfo

MIB = 1024 * 1024

# Bytes of one group in Moments (six arrays of 8 bytes), and of the tables made from them.
MOMENTS_BYTES = 48
TABLE_BYTES = 40

# Temporaries of the tiles that kernels work in, for each worker.
TILE_BYTES = 4 * MIB

# Cap of the HDF5 chunk cache of one open dataset.
CHUNK_CACHE_BYTES = 64 * MIB


def read_cost(info: ArrayInfo, block_shape: tuple[int, ...]) -> int:
    """Return the bytes that reading one block needs, the block included."""
    block = prod(block_shape) * info.dtype.itemsize
    if info.storage == "zarr":
        return 2 * block + 2 * _chunk_bytes(info)
    if info.storage == "hdf5":
        return block + 2 * _chunk_bytes(info)
    return block


def write_cost(info: ArrayInfo, block_shape: tuple[int, ...]) -> int:
    """Return the bytes that writing one block needs, the block included."""
    block = prod(block_shape) * info.dtype.itemsize
    if info.storage == "zarr":
        return 2 * block + _chunk_bytes(info)
    if info.storage == "hdf5":
        return block + 2 * _chunk_bytes(info)
    return block


def _chunk_bytes(info: ArrayInfo) -> int:
    return prod(info.chunks) * info.dtype.itemsize if info.chunks else 0
