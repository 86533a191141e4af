from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from tests.faults.shim import COMPILER, Shim

SHAPE = (24, 3, 20, 16)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    return Shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same values in every format, in chunks that divide nothing."""
    folder = tmp_path_factory.mktemp("inputs")
    values = np.random.default_rng(8).normal(50, 3, SHAPE).astype(np.float32)
    np.save(folder / "x.npy", values)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(5, 2, 20, 16), compression="gzip")
    with h5py.File(folder / "plain.h5", "w") as file:
        file.create_dataset("x", data=values)
    zarr.create_array(folder / "x.zarr", data=values, chunks=(5, 2, 20, 16))
    zarr.create_array(folder / "v2.zarr", data=values, chunks=(5, 2, 20, 16), zarr_format=2)
    zarr.create_array(
        folder / "sharded.zarr", data=values, chunks=(5, 1, 10, 8), shards=(10, 2, 20, 16)
    )
    return folder


FORMATS = ("x.npy", "x.h5", "plain.h5", "x.zarr", "v2.zarr", "sharded.zarr")
