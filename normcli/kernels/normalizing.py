"""What normalizing a block by its own statistics asks of a kernel, in one walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.geometry import Geometry
from normcli.domain.moments import Moments
from normcli.domain.norm_spec import NormSpec
from normcli.domain.transform import Normalizer

Fold = Callable[[Moments], Normalizer]


@dataclass(frozen=True)
class Recipe:
    """How a block that holds whole groups becomes normalized by their statistics.

    Attributes
    ----------
    spec : NormSpec
        The formula.
    geometry : Geometry
        Of the whole array.
    affine : Affine
        Scale and bias, cut to the block.
    source, dtype : numpy.dtype
        Type of the input, which decides what is constant, and of the result.
    fold : callable
        ``fold(moments) -> Normalizer``: what each group of the block is normalized with. It
        raises where the moments cannot be used.
    """

    spec: NormSpec
    geometry: Geometry
    affine: Affine
    source: np.dtype
    dtype: np.dtype
    fold: Fold


def not_in_one_walk(
    values: np.ndarray, recipe: Recipe, start: tuple[int, ...]
) -> tuple[Moments, np.ndarray] | None:
    """Return None: the block is to be measured first and transformed afterwards."""
    return None
