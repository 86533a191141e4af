"""Quantile sketches as arrays of a sidecar, and what they must be to be trusted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normcli.bundles.array_checks import to_count
from normcli.bundles.selection import listed
from normcli.domain.kll_image import read_image
from normcli.domain.quantile_moments import QuantileMoments
from normcli.domain.quantile_sketches import QuantileSketches
from normcli.errors import InputError

# All sketches one after another, in the order of the groups, and the bytes of each.
SKETCH_NAMES = ("sketches", "sketch_sizes")
_HINT = (
    "Fit again; or, if the statistics were changed on purpose, remove the arrays "
    f"{', '.join(SKETCH_NAMES)}, which only merge and --update need."
)


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
    sketches = QuantileSketches(images.reshape(sizes.shape), levels)
    _require_same(sketches, moments, path)
    return sketches


def _require_same(sketches: QuantileSketches, moments: QuantileMoments, path: str) -> None:
    for group, image in enumerate(sketches.images.flat):
        low, high = moments.minimum.flat[group], moments.maximum.flat[group]
        try:
            found = read_image(image) if image else None
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
        if found is not None and (found.minimum, found.maximum) != (low, high):
            raise InputError(
                f"{path}: the sketch of group {group} has other extremes than the statistics; the "
                "file was changed.",
                _HINT,
            )
    lower, center, upper = sketches.quantiles()
    for name, values in (("lower", lower), ("center", center), ("upper", upper)):
        other = ~((values == getattr(moments, name)) | (np.isnan(values) & (moments.count == 0)))
        if np.any(other):
            place = tuple(int(i) for i in np.argwhere(other)[0])
            raise InputError(
                f"{path}: the sketches do not have the quantiles in {name!r}, first at index "
                f"{place}; the file was changed.",
                _HINT,
            )
