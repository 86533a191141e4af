"""Names become sources and sinks; the libraries behind them are imported when one is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from normcli.arrays.access import ArrayEntry, ArraySink, ArraySource
from normcli.arrays.drafts import Contents
from normcli.arrays.joined import JoinedSource
from normcli.arrays.output_layout import output_info
from normcli.arrays.paths import ArrayPath, parse_path
from normcli.arrays.replacing import refuse_losses
from normcli.arrays.rules import STRICT, InputRules
from normcli.arrays.sniffing import pickle_error
from normcli.domain.array_info import ArrayInfo
from normcli.domain.dtypes import require_real
from normcli.errors import InputError, UsageError
from normcli.retrying import reopened

__all__ = [
    "list_arrays",
    "make_sink",
    "open_joined",
    "open_source",
    "open_stored",
    "output_info",
    "refuse_same",
]

_LISTED = 20
_DEFAULT_INNER = {"hdf5": "data", "npz": "data", "zarr": ""}


def open_source(text: str, rules: InputRules = STRICT) -> ArraySource:
    """Return the array that `text` names.

    Parameters
    ----------
    text : str
        A name as `parse_path` takes it. A container with one array needs no inner path;
        coordinates (axes named after themselves) do not count.
    rules : InputRules
        How far it may reach, and what becomes of chunks that are not stored.

    Raises
    ------
    InputError
        When it is missing, malformed, unsupported, or one of several arrays must be chosen.
    """
    path = parse_path(text)
    if path.format == "stream":
        from normcli.arrays.stream import NpyStreamSource

        return NpyStreamSource(sys.stdin.buffer)
    return reopened(lambda: _opened(path, rules))


def _opened(path: ArrayPath, rules: InputRules) -> ArraySource:
    if path.format == "npy":
        from normcli.arrays.npy import NpySource

        return NpySource(path.container)
    inner = path.inner or _only_array(path, rules)
    if path.format == "npz":
        from normcli.arrays.npz import open_member

        return open_member(path.container, inner)
    source = open_stored(path.format, path.container, inner, rules)
    if not rules.isolate:
        return source
    from normcli.arrays.isolated import isolated

    return isolated(source, path.format, path.container, inner, rules)


def open_stored(format: str, container: Path, inner: str, rules: InputRules) -> ArraySource:
    """Return an array of an HDF5 file or a Zarr store.

    Parameters
    ----------
    format : {"hdf5", "zarr"}
        What the container is.
    container : Path
        The file or folder.
    inner : str
        The path of the array inside it.
    rules : InputRules
        How far it may reach, and what becomes of chunks that are not stored.

    Raises
    ------
    InputError
        When it is missing, malformed or unsupported.
    """
    if format == "hdf5":
        from normcli.arrays.hdf5 import Hdf5Source

        return Hdf5Source(container, inner, rules)
    from normcli.arrays.zarr import ZarrSource

    return ZarrSource(container, inner, rules)


def open_joined(texts: Sequence[str], axis: int = 0, rules: InputRules = STRICT) -> ArraySource:
    """Return several arrays as one, end to end along `axis`.

    Raises
    ------
    InputError
        When one cannot be read, or they do not fit together.
    UsageError
        When none is named, or a pipe is one of several.
    """
    if len(texts) > 1 and "-" in texts:
        raise UsageError(
            "A pipe cannot be joined with other inputs.", "Give '-' alone, or write it to a file."
        )
    sources = [open_source(text, rules) for text in texts]
    return sources[0] if len(sources) == 1 else JoinedSource(sources, axis)


def make_sink(
    text: str,
    arrays: Mapping[str, ArrayInfo],
    overwrite: bool = False,
    *,
    hdf5_version: str | None = None,
) -> ArraySink:
    """Return a sink for one array, or for several in one container.

    Parameters
    ----------
    text : str
        Name of the output.
    arrays : mapping of str to ArrayInfo
        What it shall hold. The name ``""`` is the place that `text` itself names: its inner path,
        or the root of a Zarr store, or ``data`` in HDF5 and NPZ. Other names lie below it.
    overwrite : bool
        Whether an earlier output may be replaced; never a container that holds other arrays.
    hdf5_version : {"1.8", "1.10"}, optional
        The oldest HDF5 that shall read an HDF5 output; 1.10 where it is None.

    Raises
    ------
    UsageError
        When it exists, holds other arrays, or its format cannot hold these.
    OutputError
        When its folder is missing or cannot be written to.
    """
    path = parse_path(text, "output")
    if hdf5_version is not None and path.format != "hdf5":
        raise UsageError(f"{text} is no HDF5 file, so --hdf5-version has no meaning.")
    if path.format == "npy":
        refuse_losses(path, set(), False, overwrite)
    if path.format in ("npy", "stream"):
        return _single_sink(path, arrays, overwrite)
    paths = {key: _inner_path(path, key) for key in arrays}
    refuse_losses(path, set(paths.values()), list(arrays) != [""], overwrite)
    contents = Contents(path.container, arrays, paths, overwrite)
    if path.format == "hdf5":
        from normcli.arrays.hdf5_sink import Hdf5Sink

        return Hdf5Sink(contents, hdf5_version)
    if path.format == "zarr":
        from normcli.arrays.zarr_sink import ZarrSink

        return ZarrSink(contents)
    from normcli.arrays.npz_sink import NpzSink

    return NpzSink(contents)


def list_arrays(text: str, damage: list[InputError] | None = None) -> list[ArrayEntry]:
    """Return the arrays of a container, or those below an inner path, whatever their types are.

    Parameters
    ----------
    text : str
        Its name.
    damage : list of InputError, optional
        Takes why members of an NPZ file cannot be listed; without it, the first one ends this.

    Raises
    ------
    InputError
        When the container is missing or malformed.
    """
    path = parse_path(text)
    if path.format == "stream":
        raise UsageError("A pipe cannot be listed.", "Write it to a file.")
    entries = reopened(lambda: _list_container(path, damage=damage))
    if not path.inner:
        return entries
    below = path.inner + "/"
    return [e for e in entries if e.path == path.inner or e.path.startswith(below)]


def refuse_same(output: str, inputs: Sequence[str]) -> None:
    """Raise UsageError when an output is an input, lies inside of one, or contains one.

    Links are followed, so that another name of the same file is found out.
    """
    target = parse_path(output, "output")
    if target.format == "stream":
        return
    for text in inputs:
        source = parse_path(text)
        if source.format == "stream":
            continue
        relation = _relation(target.container, source.container)
        if relation:
            raise UsageError(
                f"The output {output} {relation} the input {text}.",
                "Choose another -o; normcli never writes into an input.",
            )


def _list_container(
    path: ArrayPath, rules: InputRules = STRICT, damage: list[InputError] | None = None
) -> list[ArrayEntry]:
    if path.format == "npy":
        from normcli.arrays.npy import npy_header

        header = npy_header(path.container)
        stored = path.container.stat().st_size - header.length
        return [ArrayEntry("", header.info, stored)]
    if path.format == "hdf5":
        from normcli.arrays.hdf5_listing import list_datasets

        return list_datasets(path.container)
    if path.format == "zarr":
        from normcli.arrays.zarr_open import list_zarr

        return list_zarr(path.container, rules)
    from normcli.arrays.npz import list_members

    if damage is not None:
        damage.clear()  # of an attempt that storage ended
    return list_members(path.container, damage)


def _only_array(path: ArrayPath, rules: InputRules) -> str:
    entries = _list_container(path, rules)
    readable = [entry for entry in entries if _is_readable(entry)]
    data = [entry for entry in readable if not _is_coordinate(entry)] or readable
    if len(data) == 1:
        return data[0].path
    if not data:
        if path.format == "npz" and any(entry.info.dtype.hasobject for entry in entries):
            raise pickle_error(path.text)
        raise InputError(f"{path.text} holds no array of real numbers.", _listing(entries))
    raise InputError(
        f"{path.text} holds {len(data)} arrays: {_listing(data)}.",
        f"Name one of them: {path.text.rstrip('/')}/{data[0].path}",
    )


def _listing(entries: Sequence[ArrayEntry]) -> str:
    shown = [f"{e.path} {e.info.shape} {e.info.dtype}" for e in entries[:_LISTED]]
    if len(entries) > _LISTED:
        shown.append(f"and {len(entries) - _LISTED} more")
    return ", ".join(shown) or "It is empty."


def _is_readable(entry: ArrayEntry) -> bool:
    try:
        require_real(entry.info.dtype, entry.path)
    except InputError:
        return False
    return True


def _is_coordinate(entry: ArrayEntry) -> bool:
    name = entry.path.rsplit("/", 1)[-1]
    return entry.info.ndim == 0 or entry.info.dims == (name,)


def _single_sink(path: ArrayPath, arrays: Mapping[str, ArrayInfo], overwrite: bool) -> ArraySink:
    if list(arrays) != [""]:
        raise UsageError(
            f"{path.text} can hold one array, not {', '.join(arrays)}.", "Write .npz, .h5 or .zarr."
        )
    if path.format == "stream":
        from normcli.arrays.stream import NpyStreamSink

        return NpyStreamSink(sys.stdout.buffer, arrays)
    from normcli.arrays.npy_sink import NpySink

    return NpySink(Contents(path.container, arrays, overwrite=overwrite))


def _inner_path(path: ArrayPath, key: str) -> str:
    joined = "/".join(part for part in (path.inner, key) if part)
    return joined or _DEFAULT_INNER[path.format]


def _relation(output: Path, source: Path) -> str | None:
    a, b = output.resolve(), source.resolve()
    if a == b or (output.exists() and source.exists() and os.path.samefile(output, source)):
        return "is" if output.suffix in (".npy", "") else "lies in the same container as"
    if a.is_relative_to(b):
        return "lies inside of"
    if b.is_relative_to(a):
        return "contains"
    return None
