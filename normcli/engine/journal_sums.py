"""What was measured, as a journal spells it: to the last bit."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.far_powers import FarPowers
from normcli.domain.kll_image import read_image
from normcli.domain.moment_kinds import Found
from normcli.domain.moments import Moments
from normcli.domain.norm_moments import NormMoments, PowerMoments
from normcli.domain.pair_moments import PairMoments
from normcli.domain.quantile_moments import QuantileMoments, SketchedMoments
from normcli.domain.quantile_sketches import QuantileSketches
from normcli.domain.ranged_moments import RangedMoments
from normcli.domain.wide_moments import WideMoments
from normcli.engine.journal_file import pack_arrays, pack_named, unpack_arrays, unpack_named

Sums = Found | PairMoments


def pack_sums(sums: Sums) -> dict[str, Any]:
    """Return sums or moments as JSON can hold them."""
    if isinstance(sums, SketchedMoments):
        images = [base64.b64encode(image).decode() for image in sums.sketches.images.flat]
        levels = list(sums.sketches.levels)
        return {"plain": pack_arrays(sums.plain), "sketches": images, "levels": levels}
    if isinstance(sums, RangedMoments):
        names = ("minimum_rest", "maximum_rest")
        return {"plain": pack_arrays(sums.plain), "extremes": pack_named(sums, names)}
    if isinstance(sums, PowerMoments):
        powers = None if sums.powers is None else pack_arrays(sums.powers)
        packed = {"plain": pack_arrays(sums.plain), "powers": powers, "p": str(sums.p)}
        return packed if sums.far is None else {**packed, "far": _pack_far(sums.far)}
    if isinstance(sums, QuantileMoments):
        # Rounded moments are merged with nothing, and need no sketches.
        return {"quantiles": pack_named(sums, sums.names())}
    if isinstance(sums, NormMoments):
        return {"norms": pack_named(sums, sums.names()), "p": str(sums.p)}
    if isinstance(sums, WideMoments):
        return {"wide": pack_named(sums, sums.names())}
    return pack_arrays(sums)


def unpack_sums(packed: Mapping[str, Any]) -> Sums:
    """Return what `pack_sums` packed.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it is not what that function writes.
    """
    if "sketches" in packed:
        plain = unpack_arrays(ExactMoments, packed["plain"])
        low, high = packed["levels"]
        return SketchedMoments(plain, _sketches(packed["sketches"], plain, (low, high)))
    if "extremes" in packed:
        rests = unpack_named(("minimum_rest", "maximum_rest"), packed["extremes"])
        return RangedMoments(unpack_arrays(ExactMoments, packed["plain"]), **rests)
    if "powers" in packed:
        powers = packed["powers"]
        return PowerMoments(
            unpack_arrays(ExactMoments, packed["plain"]),
            None if powers is None else unpack_arrays(ExactMoments, powers),
            float(packed["p"]),
            _unpack_far(packed["far"]) if "far" in packed else None,
        )
    if "quantiles" in packed:
        arrays = unpack_named(QuantileMoments.names(), packed["quantiles"])
        return QuantileMoments(**arrays, sketches=None)
    if "norms" in packed:
        arrays = unpack_named(NormMoments.names(), packed["norms"])
        return NormMoments(**arrays, p=float(packed["p"]))
    if "wide" in packed:
        return WideMoments(**unpack_named(WideMoments.names(), packed["wide"]))
    if "target_mean" in packed:
        return unpack_arrays(PairMoments, packed)
    # Regions that one block fills are rounded by its task, unless their exact sums are kept.
    if "squares" in packed:
        return unpack_arrays(ExactMoments, packed)
    return unpack_arrays(Moments, packed)


def _pack_far(far: FarPowers) -> dict[str, Any]:
    sums = {name: pack_arrays(getattr(far, name)) for name in ("upper", "lower")}
    return {**sums, **pack_named(far, ("band",))}


def _unpack_far(packed: Mapping[str, Any]) -> FarPowers:
    upper, lower = (unpack_arrays(ExactMoments, packed[name]) for name in ("upper", "lower"))
    return FarPowers(upper=upper, lower=lower, **unpack_named(("band",), packed))


def _sketches(
    packed: list[str], plain: ExactMoments, levels: tuple[float, float]
) -> QuantileSketches:
    images = np.empty(len(packed), object)
    images[:] = [base64.b64decode(text, validate=True) for text in packed]
    sketches = QuantileSketches(images.reshape(plain.shape), levels)
    for image, count in zip(images.tolist(), plain.count.flat, strict=True):
        if (read_image(image).count if image else 0) != count:
            raise ValueError("a sketch stands for another number of elements")
    return sketches
