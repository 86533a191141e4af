"""Statistics, scale and bias as tasks look them up: by the region of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from normcli.arrays.access import ArraySource
from normcli.domain.affine import Affine
from normcli.domain.grid import Block
from normcli.domain.moment_kinds import moments_from
from normcli.domain.norm_spec import NormSpec
from normcli.domain.normalizers import normalizer_of
from normcli.domain.transform import Normalizer


class NormalizerTables(Protocol):
    """Known statistics of all groups."""

    def region(self, index: tuple[slice, ...]) -> Normalizer:
        """Return what the groups of one region contribute."""
        ...


@dataclass(frozen=True)
class HeldTables:
    """Statistics in memory.

    Attributes
    ----------
    whole : Normalizer
        Center, factor and divisor of every group.
    """

    whole: Normalizer

    def region(self, index: tuple[slice, ...]) -> Normalizer:
        """Return a view of one region."""
        return self.whole[index]


@dataclass(frozen=True)
class StoredTables:
    """Statistics that outgrow memory: moments in a container, read by region.

    Attributes
    ----------
    arrays : dict of str to ArraySource
        The arrays of Moments by name, with the rest of their means where it is kept.
    spec : NormSpec
        How they become a mean and a variance.
    dtype : numpy.dtype
        Type of the data they were taken from.
    """

    arrays: dict[str, ArraySource]
    spec: NormSpec
    dtype: np.dtype

    def region(self, index: tuple[slice, ...]) -> Normalizer:
        """Read the moments of one region and fold them."""
        block = Block(0, tuple(s.start for s in index), tuple(s.stop for s in index))
        held = {name: array.read(block) for name, array in self.arrays.items()}
        moments = moments_from(self.spec, held)
        return normalizer_of(moments, self.spec, self.dtype)


@dataclass(frozen=True)
class AffineTables:
    """Scale and bias in memory.

    Attributes
    ----------
    whole : Affine
        Both with the extents of the scale axes, or absent.
    """

    whole: Affine

    def region(self, index: tuple[slice, ...]) -> Affine:
        """Return a view of one region."""
        scale, bias = self.whole.scale, self.whole.bias
        return Affine(
            None if scale is None else scale[index], None if bias is None else bias[index]
        )
