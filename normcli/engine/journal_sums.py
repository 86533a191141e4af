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
from normcli.domain.quantile_moments import QuantileMoments, SketchedMoments, WideQuantileMoments
from normcli.domain.quantile_sketches import QuantileSketches, require_images
from normcli.domain.ranged_moments import RangedMoments
from normcli.domain.wide_moments import WideMoments
from normcli.engine.journal_file import pack_arrays, pack_named, unpack_arrays, unpack_named

Sums = Found | PairMoments


def pack_sums(sums: Sums) -> dict[str, Any]:
    """Return sums or moments as JSON can hold them."""
    if isinstance(sums, SketchedMoments):
        images = [base64.b64encode(image).decode() for image in sums.sketches.images.flat]
        levels = list(sums.sketches.levels)
        dtype = sums.sketches.dtype
        items = {} if dtype is None else {"items": dtype.str}
        return {"plain": pack_arrays(sums.plain), "sketches": images, "levels": levels, **items}
    if isinstance(sums, RangedMoments):
        names = ("minimum_rest", "maximum_rest")
        return {"plain": pack_arrays(sums.plain), "extremes": pack_named(sums, names)}
    if isinstance(sums, PowerMoments):
        powers = None if sums.powers is None else pack_arrays(sums.powers)
        packed = {"plain": pack_arrays(sums.plain), "powers": powers, "p": str(sums.p)}
        return packed if sums.far is None else {**packed, "far": _pack_far(sums.far)}
    if isinstance(sums, QuantileMoments):
        # Rounded moments are merged with nothing, and need no sketches.
        kind = "wide_quantiles" if isinstance(sums, WideQuantileMoments) else "quantiles"
        return {kind: pack_named(sums, sums.names())}
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
        dtype = np.dtype(packed["items"]) if "items" in packed else None
        return SketchedMoments(plain, _sketches(packed["sketches"], plain, (low, high), dtype))
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
    if "wide_quantiles" in packed:
        arrays = unpack_named(WideQuantileMoments.names(), packed["wide_quantiles"])
        return WideQuantileMoments(**arrays, sketches=None)
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
    packed: list[str],
    plain: ExactMoments,
    levels: tuple[float, float],
    dtype: np.dtype | None,
) -> QuantileSketches:
    images = np.empty(len(packed), object)
    images[:] = [base64.b64decode(text, validate=True) for text in packed]
    sketches = QuantileSketches(images.reshape(plain.shape), levels, dtype)
    for image, count in zip(images.tolist(), plain.count.flat, strict=True):
        held = read_image(image) if image else None
        if (0 if held is None else held.count) != count:
            raise ValueError("a sketch stands for another number of elements")
        if held is not None and dtype is not None:
            require_images(held)
    return sketches
