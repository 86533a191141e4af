"""Names of the axes of an HDF5 dataset, by HDF5's dimension scales and their labels.

The attributes are read with their types checked. HDF5's own functions for dimension scales take
whatever an attribute holds for pointers: a changed byte in its type ended the process.
"""

from __future__ import annotations

from typing import Any

import h5py

from normcli.arrays.hdf5_names import text_of
from normcli.retrying import raise_storage_error

_LABELS = "DIMENSION_LABELS"
_SCALES = "DIMENSION_LIST"
# What h5py raises for what it cannot read, or has no name for.
_UNREADABLE = (OSError, TypeError, ValueError, RuntimeError, KeyError)


def dimension_names(dataset: h5py.Dataset) -> tuple[str, ...] | None:
    """Return a name for each axis, empty where it has none, or None where no axis has one.

    A label goes before the name of a scale, and the scale of one axis has its own name.
    """
    if dataset.ndim == 1 and _is_scale(dataset):
        return (_last(text_of(dataset.name)),)
    labels, scales = _labels(dataset), _scales(dataset)
    names = tuple(label or scale for label, scale in zip(labels, scales, strict=True))
    return names if any(names) else None


def _is_scale(dataset: h5py.Dataset) -> bool:
    value = _typed(dataset, "CLASS", (), _is_text)
    return value is not None and _text(value) == "DIMENSION_SCALE"


def _labels(dataset: h5py.Dataset) -> list[str]:
    values = _typed(dataset, _LABELS, (dataset.ndim,), _is_text)
    return [""] * dataset.ndim if values is None else [_text(value) for value in values]


def _scales(dataset: h5py.Dataset) -> list[str]:
    """Return the name of the first scale of each axis."""
    values = _typed(dataset, _SCALES, (dataset.ndim,), _is_references)
    names = [""] * dataset.ndim
    for axis, references in enumerate(() if values is None else values):
        try:
            if len(references):
                names[axis] = _last(text_of(dataset.file[references[0]].name))
        except _UNREADABLE as error:
            raise_storage_error(dataset.file.filename, error)
            continue  # a reference to what is not there
    return names


def _typed(dataset: h5py.Dataset, name: str, shape: tuple[int, ...], fits: Any) -> Any:
    """Return the value of an attribute that has this shape and a type that fits, else None."""
    try:
        if name not in dataset.attrs:
            return None
        attribute = dataset.attrs.get_id(name)
        if attribute.shape != shape or not fits(attribute.dtype):
            return None
        return dataset.attrs[name]
    except _UNREADABLE as error:
        raise_storage_error(dataset.file.filename, error)
        return None


def _is_text(dtype: Any) -> bool:
    return h5py.check_string_dtype(dtype) is not None


def _is_references(dtype: Any) -> bool:
    inner = h5py.check_vlen_dtype(dtype)
    return inner is not None and h5py.check_ref_dtype(inner) is h5py.Reference


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _last(name: str | None) -> str:
    return (name or "").rsplit("/", 1)[-1]
