"""Quantile sketches as arrays of a sidecar, and what they must be to be trusted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normcli.bundles.array_checks import to_count
from normcli.bundles.selection import listed
from normcli.domain.integer_images import integers_of
from normcli.domain.integer_origins import has_origins
from normcli.domain.kll_image import KllImage, read_image
from normcli.domain.quantile_moments import QUANTILE_RESTS, QuantileMoments, WideQuantileMoments
from normcli.domain.quantile_sketches import QuantileSketches, require_images
from normcli.errors import InputError

# All sketches one after another, in the order of the groups, and the bytes of each.
SKETCH_NAMES = ("sketches", "sketch_sizes")
_HINT = (
    "Fit again; or, if the statistics were changed on purpose, remove the arrays "
    f"{', '.join(SKETCH_NAMES)}, which only merge and --update need."
)


def as_stored(sketches: QuantileSketches) -> QuantileSketches:
    """Return sketches as a sidecar has them: of the elements themselves, where none is rounded.

    So those of integers below 2**53 are what every version reads and writes.
    """
    return sketches.of_floats() if sketches.within_exact() else sketches


def sketch_arrays(sketches: QuantileSketches) -> dict[str, np.ndarray]:
    """Return the arrays that a sidecar has besides those of the moments."""
    images = sketches.images
    sizes = np.array([len(image) for image in images.flat], np.int64)
    data = np.frombuffer(b"".join(images.flat), np.uint8)
    return {"sketches": data, "sketch_sizes": sizes.reshape(images.shape)}


def sketches_from_arrays(
    arrays: Mapping[str, np.ndarray],
    moments: QuantileMoments,
    levels: tuple[float, float],
    path: str,
    dtype: np.dtype,
    integer_items: bool = False,
) -> QuantileSketches | None:
    """Return the sketches that quantiles were taken from, where a file holds them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        All arrays of the file.
    moments : QuantileMoments
        What the sketches must belong to.
    levels : tuple of float
        The quantiles, from 0 to 1.
    path : str
        The file, for messages.
    dtype : numpy.dtype
        Type of the data.
    integer_items : bool
        Whether the items stand for integers of that type; else they are the elements.

    Raises
    ------
    InputError
        When only one of the arrays is there, they are no sketches, or they belong to other
        moments.
    """
    held = [name for name in SKETCH_NAMES if name in arrays]
    if not held:
        return None
    if len(held) < len(SKETCH_NAMES):
        missing = [name for name in SKETCH_NAMES if name not in arrays]
        raise InputError(f"{path} holds {listed(held)}, but not {listed(missing)}.", _HINT)
    data = arrays["sketches"]
    if data.dtype != np.uint8 or data.ndim != 1:
        raise InputError(f"{path}: 'sketches' is no line of bytes.", _HINT)
    sizes = to_count(arrays["sketch_sizes"], f"{path}: 'sketch_sizes'")
    if sizes.shape != moments.shape:
        raise InputError(
            f"{path}: 'sketch_sizes' has shape {sizes.shape}, which does not go with statistics of "
            f"shape {moments.shape}.",
            _HINT,
        )
    # Compared one by one: sums of sizes that a file states may leave int64.
    if sizes.size and int(sizes.max()) > data.size:
        raise InputError(f"{path}: a sketch is larger than all of them.", _HINT)
    ends = np.cumsum(sizes.reshape(-1), dtype=object)
    if (int(ends[-1]) if ends.size else 0) != data.size:
        raise InputError(f"{path}: the sizes of the sketches are not those of 'sketches'.", _HINT)
    images = np.empty(sizes.size, object)
    text = data.tobytes()
    for group, (end, size) in enumerate(zip(ends.tolist(), sizes.flat, strict=True)):
        images[group] = text[end - int(size) : end]
    integers = dtype.newbyteorder("=") if has_origins(dtype) else None
    if integer_items and integers is None:
        raise InputError(f"{path} holds sketches of integers, but is of {dtype}.", _HINT)
    held_as = integers if integer_items else None
    sketches = QuantileSketches(images.reshape(sizes.shape), levels, held_as)
    _require_same(sketches, moments, path)
    return sketches if integers is None else sketches.of_integers(integers)


def _require_same(sketches: QuantileSketches, moments: QuantileMoments, path: str) -> None:
    for group, image in enumerate(sketches.images.flat):
        low, high = moments.minimum.flat[group], moments.maximum.flat[group]
        try:
            found = read_image(image) if image else None
            if found is not None and sketches.dtype is not None:
                require_images(found)
        except ValueError as error:
            raise InputError(
                f"{path}: the sketch of group {group} is damaged: {error}.", _HINT
            ) from None
        if (0 if found is None else found.count) != moments.count.flat[group]:
            raise InputError(
                f"{path}: the sketch of group {group} stands for another number of elements than "
                "its count; the file was changed.",
                _HINT,
            )
        if found is not None and not _has_extremes(found, low, high, sketches.dtype):
            raise InputError(
                f"{path}: the sketch of group {group} has other extremes than the statistics; the "
                "file was changed.",
                _HINT,
            )
    quantiles, rests = sketches.quantiles_with_rests()
    pairs = list(zip(("lower", "center", "upper"), quantiles, strict=True))
    if rests is not None and isinstance(moments, WideQuantileMoments):
        pairs += zip(QUANTILE_RESTS, rests, strict=True)
    for name, values in pairs:
        own = getattr(moments, name)
        other = ~((values == own) | (np.isnan(values) & (np.isnan(own) | (moments.count == 0))))
        if np.any(other):
            place = tuple(int(i) for i in np.argwhere(other)[0])
            raise InputError(
                f"{path}: the sketches do not have the quantiles in {name!r}, first at index "
                f"{place}; the file was changed.",
                _HINT,
            )


def _has_extremes(image: KllImage, low: float, high: float, dtype: np.dtype | None) -> bool:
    """Return whether a sketch has the extremes that moments say, which are rounded to float64."""
    if dtype is None:
        return (image.minimum, image.maximum) == (low, high)
    ends, alone = integers_of(np.array([image.minimum, image.maximum]), dtype)
    # An end that shares its image may be the next integer.
    next_ones = ends + (~alone).astype(dtype)
    return all(
        end in found
        for end, *found in zip(
            (low, high), ends.astype(np.float64), next_ones.astype(np.float64), strict=True
        )
    )
