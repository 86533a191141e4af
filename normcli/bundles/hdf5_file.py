"""HDF5: one dataset an array, attributes as JSON text in the root attribute ``normcli``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from normcli.bundles.attributes import ATTRIBUTES, attributes_from_text, attributes_text
from normcli.bundles.bundle import Bundle
from normcli.bundles.element_types import from_storage, to_storage, type_from_storage
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, SafetyError, UsageError

# Filters inside of HDF5 and h5py: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf.
# Any other makes HDF5 load a library from HDF5_PLUGIN_PATH.
_FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))
_ONE_CHUNK = 16 * 2**20


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read an HDF5 file; datasets in groups have names such as ``group/dataset``.

    Raises
    ------
    InputError
        When the file is malformed, or a dataset was never (or not wholly) written.
    SafetyError
        When a wanted dataset lies in another file.
    """
    size = require_file(path)
    with reading(path, "an HDF5 file"), opened(path) as file:
        return read_open(file, path, Allowance(path, size), choose)


def opened(file: str | IO[bytes]) -> Any:
    """Return an HDF5 file, opened to be read, by an HDF5 that loads no library for it."""
    import h5py

    # Else a file that asks for an unknown filter has every library in these folders loaded.
    while h5py.h5pl.size():
        h5py.h5pl.remove(0)
    return h5py.File(file, "r")


def read_open(file: Any, path: str, allowance: Allowance, choose: Choose = everything) -> Bundle:
    """Read an open HDF5 file.

    Parameters
    ----------
    file : h5py.File
        The file.
    path : str
        Its name, for messages.
    allowance : Allowance
        Bytes that may be allocated.
    choose : callable, optional
        Receives the names of the datasets and returns those to read.

    Raises
    ------
    InputError, SafetyError
        As `read`.
    """
    attrs = {}
    if ATTRIBUTES in file.attrs:
        attrs = attributes_from_text(file.attrs[ATTRIBUTES], path)
    found = dict(objects(file))
    arrays = {name: _load(found[name], name, path, allowance) for name in choose(tuple(found))}
    return Bundle(arrays, attrs)


def write(path: str, bundle: Bundle) -> None:
    """Write arrays and attributes to an HDF5 file that HDF5 1.10 and later read.

    Raises
    ------
    UsageError
        When an array has a name that HDF5 does not take.
    """
    import h5py

    # HDF5 crashes at exit after a write to a full disk has failed, so it only sees memory.
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs[ATTRIBUTES] = attributes_text(bundle.attrs)
        for name, values in bundle.arrays.items():
            if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
                raise UsageError(f"{name!r} is no name for an HDF5 dataset.")
            stored = to_storage(values)
            checked: dict[str, Any] = {}
            if stored.size and stored.ndim:
                whole = stored.nbytes <= _ONE_CHUNK
                checked = {"fletcher32": True, "chunks": stored.shape if whole else True}
            file.create_dataset(name, data=stored, **checked)
    Path(path).write_bytes(image.getbuffer())


def objects(
    group: Any, prefix: str = "", seen: set[Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield datasets, and links in place of what they lead to, by name.

    Each is opened from its own group: by its whole name, HDF5 would begin at the root each time.
    """
    import h5py

    seen = set() if seen is None else seen
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            yield prefix + name, link
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        elif isinstance(item, h5py.Group):
            # Hard links can make a group hold itself, so each group is entered once.
            address = h5py.h5o.get_info(item.id).addr
            if address not in seen:
                seen.add(address)
                yield from objects(item, f"{prefix}{name}/", seen)


def _load(item: Any, name: str, path: str, allowance: Allowance) -> np.ndarray:
    import h5py

    where = f"{path}: {name!r}"
    if isinstance(item, h5py.ExternalLink):
        raise SafetyError(
            f"{where} is a link to the file {item.filename!r}; parameters are read from the "
            "named file only.",
            "Name the other file itself.",
        )
    if isinstance(item, h5py.SoftLink):
        raise InputError(f"{where} is a link to {item.path!r}.", "Name that dataset itself.")
    if item.is_virtual or item.external:
        raise SafetyError(f"{where} takes its elements from other files.")
    if item.shape is None:
        raise InputError(f"{where} is an empty dataset without a shape.")
    type_from_storage(item.dtype, where)
    plist = item.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    unknown = [number for number in filters if number not in _FILTERS]
    if unknown:
        raise InputError(f"{where} uses the HDF5 filter {unknown[0]}, which normcli does not load.")
    _require_stored(item, where)
    allowance.take(name, item.size * item.dtype.itemsize)
    return from_storage(np.asarray(item[()], dtype=item.dtype), where)


def _require_stored(item: Any, where: str) -> None:
    # HDF5 reads what was never written as zeros, which are wrong statistics.
    if item.size == 0:
        return
    if item.chunks is None:
        missing = item.id.get_storage_size() < item.size * item.dtype.itemsize
    else:
        grid = [-(-extent // chunk) for extent, chunk in zip(item.shape, item.chunks, strict=True)]
        missing = item.id.get_num_chunks() < int(np.prod(grid, dtype=object))
    if missing:
        raise InputError(f"{where}: not all of its {item.size:,} elements are stored.")
