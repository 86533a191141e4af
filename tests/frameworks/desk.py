"""Arrays to compare with a framework, and normcli's answer to them through files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

import normcli
from normcli.engine.report import Report

from ..api.stores import load, store, suffix

# The storages take turns, so that all of them are compared without multiplying the tests.
STORAGES = ("npy", "h5-chunked", "zarr3", "npy-fortran", "zarr-sharded")

# What a framework's own precision may cost it, against our exact values rounded once.
NATIVE = {"float16": 2e-2, "float32": 2e-4, "float64": 1e-12}


@dataclass
class Desk:
    """A folder in which one test works.

    Attributes
    ----------
    folder : Path
        Where its files are.
    kernel : {"numpy", "numba"}
        The kernels that must have run.
    storage : str
        Where inputs are stored and outputs are written.
    report : Report, optional
        What the last apply reported.
    """

    folder: Path
    kernel: str
    storage: str = "npy"
    report: Report | None = None
    written: int = 0

    def turn(self, number: int) -> None:
        self.storage = STORAGES[number % len(STORAGES)]

    def write(self, name: str, values: np.ndarray) -> str:
        """Write a parameter, always as NPY."""
        path = self.folder / f"{name}.npy"
        np.save(path, values)
        return str(path)

    def put(self, name: str, values: np.ndarray, chunks: tuple[int, ...] | None = None) -> str:
        return store(self.folder, name, values, self.storage, chunks)

    def apply(self, source: str, **options: Any) -> np.ndarray:
        self.written += 1
        output = str(self.folder / f"output{self.written}{suffix(self.storage)}")
        self.report = normcli.apply(source, output, **options)
        assert self.report.kernel == self.kernel
        return load(output)


def rng_of(*name: object) -> np.random.Generator:
    """Return random numbers that depend on the name alone."""
    return np.random.default_rng(zlib.crc32(repr(name).encode()))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, axis: int = 1) -> np.ndarray:
    """Draw values whose mean and spread differ along an axis."""
    extents = [1] * len(shape)
    extents[axis] = shape[axis]
    far = 3 if dtype == "float16" else 30
    offset, spread = rng.uniform(-far, far, extents), rng.uniform(0.3, 3, extents)
    return (offset + spread * rng.standard_normal(shape)).astype(dtype)


def draw_affine(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scale of either sign, with a zero in it, and a bias."""
    scale, bias = rng.uniform(-2, 2, shape), rng.normal(0, 2, shape)
    scale.flat[0] = 0.0
    return scale.astype(dtype), bias.astype(dtype)


def cuts(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield consecutive slices of these lengths."""
    for stop, size in zip(accumulate(sizes), sizes, strict=True):
        yield slice(stop - size, stop)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        np.asarray(actual, "f8"),
        np.asarray(expected, "f8"),
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
    )


def rounded_once(actual: np.ndarray, exact: np.ndarray, dtype: str) -> None:
    """Check that a result of this type is the exact one, to a unit in the last place."""
    assert actual.dtype == dtype
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(exact))
    finite = np.isfinite(exact)
    unit = np.spacing(np.abs(exact[finite]).astype(dtype)).astype("f8")
    wrong = np.abs(actual[finite].astype("f8") - exact[finite]) > unit + 1e-12
    assert not wrong.any()
