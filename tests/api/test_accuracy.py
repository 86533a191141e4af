"""Mean and variance of whole runs, in units in the last place of float64 from the exact ones."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import normcli

N = 1500


def spread(center: float, scale: float):
    return lambda random: center + scale * random.normal(size=N)


def magnitudes(low: int, high: int):
    """Return numbers of every power of two between two."""

    def make(random: np.random.Generator) -> np.ndarray:
        return np.ldexp(random.uniform(-2, 2, N), random.integers(low, high, N))

    return make


def outlier(random: np.random.Generator) -> np.ndarray:
    return np.concatenate([[6e4], random.normal(size=N - 1)])


def constant(random: np.random.Generator) -> np.ndarray:
    return np.full(N, 0.1)


def cancelling(random: np.random.Generator) -> np.ndarray:
    return np.where(np.arange(N) % 2, 3e4, -3e4) + random.normal(size=N)


def subnormal(smallest: float):
    return lambda random: random.integers(0, 7, N) * smallest


EVERYWHERE = {
    "usual": spread(5, 2),
    "far from 0": spread(1e4, 1),
    "outlier": outlier,
    "constant": constant,
    "cancelling": cancelling,
}
FLOATS = {
    "float16": {**EVERYWHERE, "subnormal": subnormal(6e-8), "magnitudes": magnitudes(-24, 15)},
    "float32": {
        **EVERYWHERE,
        "far away": spread(1e9, 300),
        "subnormal": subnormal(1e-45),
        "magnitudes": magnitudes(-149, 126),
        "huge": spread(0, 1e37),
    },
    "float64": {
        **EVERYWHERE,
        "far away": spread(1e15, 1),
        "tiny": spread(3e-6, 1e-8),
        "magnitudes": magnitudes(-530, 500),
        "huge": spread(0, 1e150),
        "nearly constant": spread(1e8, 1e-6),
    },
}
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def exact(values: list[Fraction]) -> tuple[Fraction, Fraction]:
    """Return mean and variance."""
    n = len(values)
    mean = sum(values) / n
    return mean, sum(v * v for v in values) / n - mean * mean


def ulps(got: float, want: Fraction) -> float:
    """Return how many units in the last place of `want` lie between the two."""
    if want == 0:
        return 0.0 if got == 0 else math.inf
    return float(abs(Fraction(got) - want) / Fraction(math.ulp(float(want))))


def worst(folder: Path, table: np.ndarray, storage: str) -> float:
    """Fit the columns of a table in several blocks; return the largest error of all."""
    if storage == "npy":
        np.save(folder / "x.npy", table)
        name = "x.npy"
    elif storage == "hdf5":
        with h5py.File(folder / "x.h5", "w") as file:
            file.create_dataset("x", data=table, chunks=(97, 2))
        name = "x.h5"
    else:
        zarr.create_array(folder / "x.zarr", data=table, chunks=(131, 3))
        name = "x.zarr"
    fitted = normcli.fit(folder / name, layout="NC", workers=2)
    found = 0.0
    for column in range(table.shape[1]):
        elements = table[:, column]
        if elements.dtype.kind in "iub":
            values = [Fraction(int(v)) for v in elements]
        else:
            values = [Fraction(float(v)) for v in elements]
        mean, variance = exact(values)
        found = max(
            found,
            ulps(float(fitted.mean[column]), mean),
            ulps(float(fitted.variance[column]), variance),
        )
    return found


@pytest.mark.parametrize("storage", ["npy", "hdf5", "zarr"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats(tmp_path, figures, dtype, storage):
    random = np.random.default_rng(sum(map(ord, dtype + storage)))
    table = np.stack([make(random) for make in FLOATS[dtype].values()], axis=1).astype(dtype)
    found = worst(tmp_path, table, storage)
    figures.most("R7", **{f"{dtype}_ulp": found})
    assert found <= 1


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(tmp_path, figures, dtype):
    random = np.random.default_rng(sum(map(ord, dtype)))
    if dtype == "bool":
        table = random.random((N, 3)) < np.array([0.5, 0.01, 0.999])
    else:
        limits = np.iinfo(dtype)
        whole = random.integers(limits.min, limits.max, (N, 3), dtype, endpoint=True)
        whole[:, 1] = limits.max - whole[:, 1] % 3
        whole[:, 2] = limits.min + whole[:, 2] % 100
        table = whole
    found = worst(tmp_path, table, "npy")
    figures.most("R7", integers_ulp=found)
    assert found <= 1
