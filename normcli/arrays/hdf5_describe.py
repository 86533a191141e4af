"""What an open HDF5 dataset says of itself, in the words that all formats share."""

from __future__ import annotations

import contextlib
from typing import Any

import h5py
import numpy as np

from normcli.arrays.attributes import plain_attrs
from normcli.arrays.hdf5_chunks import decodable
from normcli.arrays.hdf5_dims import dimension_names
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.errors import InputError
from normcli.retrying import raise_storage_error

_HIDDEN_ATTRS = {"DIMENSION_LIST", "DIMENSION_LABELS", "CLASS", "REFERENCE_LIST", "NAME"}


def readable_info(dataset: h5py.Dataset, name: str) -> ArrayInfo:
    """Return what a dataset is, if it holds real numbers that can be decoded here.

    Raises
    ------
    InputError
        When it holds anything else, or needs a filter that is not installed.
    """
    if dataset.shape is None:
        raise InputError(f"{name} has no elements and no shape.")
    dtype = dataset.dtype
    if h5py.check_enum_dtype(dtype) is not None:
        raise InputError(
            f"{name} holds an enumeration, whose codes are names, not numbers.",
            "Store the codes as an integer dataset if they are meant as numbers.",
        )
    if h5py.check_string_dtype(dtype) is not None:
        raise InputError(f"{name} holds strings, not real numbers.")
    if h5py.check_vlen_dtype(dtype) is not None:
        raise InputError(
            f"{name} holds rows of varying length (vlen of {h5py.check_vlen_dtype(dtype)}), not "
            "real numbers in a grid.",
            "Pad the rows to one length, and store them as a plain dataset.",
        )
    if h5py.check_ref_dtype(dtype) is not None:
        raise InputError(f"{name} holds references to other objects, not real numbers.")
    require_real(dtype, name)
    if not decodable(dataset):
        require_filters(dataset, name)
    return describe(dataset)


def require_filters(dataset: h5py.Dataset, name: str) -> None:
    """Refuse a dataset whose filters HDF5 does not know, once hdf5plugin had its say.

    Raises
    ------
    InputError
        When one is missing.
    """
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers the filters it brings along
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{name} is compressed by the HDF5 filter {code} "
                f"({label.decode(errors='replace') or 'without a name'}), which is not installed.",
                "needs: pip install 'normcli[hdf5]', or rewrite it: h5repack -f GZIP=4 IN OUT",
            )


def describe(dataset: h5py.Dataset) -> ArrayInfo:
    """Return shape, type, chunks, names, attributes and filters of a dataset."""
    dtype = dataset.dtype
    if dtype.kind in "biuf":
        dtype = np.dtype(dtype.str)  # without the metadata that h5py attaches
    return ArrayInfo(
        shape=tuple(int(n) for n in dataset.shape),
        dtype=dtype,
        chunks=dataset.chunks,
        dims=dimension_names(dataset),
        attrs=_attrs(dataset),
        storage="hdf5",
        codecs=_codecs(dataset),
    )


def _attrs(dataset: h5py.Dataset) -> dict[str, Any]:
    found = {}
    for name in dataset.attrs:
        if name in _HIDDEN_ATTRS or name.startswith("_Netcdf4"):
            continue
        try:
            found[name] = dataset.attrs[name]
        except (OSError, TypeError, ValueError, RuntimeError, KeyError) as error:
            raise_storage_error(dataset.file.filename, error)
            continue  # of a type that h5py has no name for
    return plain_attrs(found)


def _codecs(dataset: h5py.Dataset) -> dict[str, Any]:
    if dataset.chunks is None:
        return {}
    plist = dataset.id.get_create_plist()
    known = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SCALEOFFSET}
    others = {plist.get_filter(n)[0] for n in range(plist.get_nfilters())} - known
    codecs: dict[str, Any] = {
        "compression": dataset.compression,
        "compression_opts": dataset.compression_opts,
        "shuffle": bool(dataset.shuffle),
        "fletcher32": bool(dataset.fletcher32),
    }
    if dataset.compression not in ("gzip", "lzf"):
        # Filters that cannot be written here are replaced by the one every reader has.
        compressed = bool(others)
        codecs["compression"] = "gzip" if compressed else None
        codecs["compression_opts"] = 4 if compressed else None
        codecs["shuffle"] = compressed or codecs["shuffle"]
    return codecs
