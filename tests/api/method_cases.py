"""What the tests of methods that divide by no deviation share: data, groups and refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.errors import UsageError

from .stores import store

X = np.random.default_rng(5).normal(-2, 3, (24, 6, 10, 9)).astype("f4")
CHUNKS = (5, 4, 10, 6)
SUFFIXES = (".json", ".npz", ".h5", ".zarr", ".safetensors")

Statistic = Callable[[np.ndarray, tuple[int, ...]], Sequence[np.ndarray]]


def aggregated_axes(layout: str, ndim: int, mode: str) -> tuple[int, ...]:
    """Return the axes that a mode of `test_properties` aggregates, groups of channels left out."""
    n, c = layout.replace("B", "N").index("N"), layout.index("C")
    kept = {
        "batch": {c},
        "instance": {n, c},
        "layer": set(range(ndim - 1)),
        "layer of all": {n},
        "custom": set(range(ndim)) - {n},
        "everything": set(),
    }[mode]
    return tuple(axis for axis in range(ndim) if axis not in kept)


def of_groups(layout: str, x: np.ndarray, mode: str, statistic: Statistic) -> np.ndarray:
    """Return statistics of the group of each element.

    Parameters
    ----------
    layout, mode : str
        Which groups; two halves of the channels with ``group``.
    x : ndarray
        The elements.
    statistic : callable
        From elements and aggregated axes to one array or more, with those axes kept as 1.

    Returns
    -------
    ndarray
        One entry for each array of `statistic`, of the shape of `x`.
    """
    if mode == "group":
        c = layout.index("C")
        halves = [of_groups(layout, h, "layer of all", statistic) for h in np.split(x, 2, axis=c)]
        return np.concatenate(halves, axis=c + 1)
    found = statistic(x, aggregated_axes(layout, x.ndim, mode))
    return np.stack([np.broadcast_to(values, x.shape) for values in found])


def once_a_group(layout: str, values: np.ndarray, mode: str) -> np.ndarray:
    """Return one of the equal values of each group, without the aggregated axes."""
    axes = aggregated_axes(layout, values.ndim, mode)
    return values[tuple(0 if axis in axes else slice(None) for axis in range(values.ndim))]


def assert_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    """Fail unless fit and apply refuse options in these words, and leave nothing."""
    name = store(folder, "x", X)
    with pytest.raises(UsageError, match=words):
        normcli.fit(name, layout="NCHW", **options)
    with pytest.raises(UsageError, match=words):
        normcli.apply(name, folder / "y.npy", layout="NCHW", **options)
    assert not (folder / "y.npy").exists()
