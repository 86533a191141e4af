from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from tests.faults.commands import SHAPE
from tests.faults.forked import Forks
from tests.faults.outcomes import hidden, outcome
from tests.faults.shim import COMPILER, Shim

Whole = Callable[[list[str]], dict[str, Any]]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    return Shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def forks(shim: Shim) -> Iterator[Forks]:
    with Forks(shim.library) as forks:
        yield forks


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


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return what an uninterrupted run of a command leaves under names that begin with ``y``."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def of(command: list[str]) -> dict[str, Any]:
        key = tuple(command)
        if key not in found:
            folder = tmp_path_factory.mktemp("whole")
            ended = forks.run(*command, cwd=folder)
            assert ended.code == 0, ended.err
            assert hidden(folder) == []
            found[key] = outcome(folder, "y")
        return found[key]

    return of
