"""Arrays in every storage that normcli reads and writes, by the reference libraries."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

STORAGES = ("npy", "npy-fortran", "h5", "h5-chunked", "zarr2", "zarr3", "zarr-sharded")


def hold_groups(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have statistics of more than `number` groups written by block, in place of a million."""
    for module in ("parameters", "fit_setup", "apply_setup"):
        monkeypatch.setattr(f"normcli.api.{module}.GROUPS_IN_MEMORY", number)


def store(
    folder: Path,
    name: str,
    values: np.ndarray,
    storage: str = "npy",
    chunks: tuple[int, ...] | None = None,
) -> str:
    """Write `values` and return the name under which normcli finds them."""
    if chunks is None:
        chunks = tuple(max(1, (n + 1) // 2) for n in values.shape)
    if storage.startswith("npy"):
        path = folder / f"{name}.npy"
        np.save(path, np.asfortranarray(values) if storage == "npy-fortran" else values)
    elif storage.startswith("h5"):
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            if storage == "h5-chunked":
                file.create_dataset("x", data=values, chunks=chunks, compression="gzip")
            else:
                file["x"] = values
    else:
        path = folder / f"{name}.zarr"
        options: dict = {"zarr_format": 2 if storage == "zarr2" else 3}
        if storage == "zarr-sharded":
            options["shards"] = tuple(2 * c for c in chunks)
        array = zarr.create_array(
            path, shape=values.shape, chunks=chunks, dtype=values.dtype, **options
        )
        array[...] = values
    return str(path)


def load(path: str | Path) -> np.ndarray:
    """Read an array that normcli wrote."""
    text = str(path)
    if text.endswith(".npy"):
        return np.load(text)
    if text.endswith(".h5"):
        with h5py.File(text) as file:
            (name,) = list(file)
            return file[name][...]
    return zarr.open_array(text, mode="r")[...]


def suffix(storage: str) -> str:
    """Return the suffix of a storage."""
    return {"n": ".npy", "h": ".h5", "z": ".zarr"}[storage[0]]
