"""Bundles by file name: the suffix decides the format."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from normcli.bundles import (
    hdf5_file,
    json_file,
    keras_file,
    matlab_file,
    npy_file,
    npz_file,
    onnx_file,
    safetensors_file,
    torch_file,
    zarr_file,
)
from normcli.bundles.bundle import Bundle
from normcli.bundles.selection import Choose, everything, under_prefix
from normcli.errors import InputError, UsageError, missing_file
from normcli.isolation import require_survival
from normcli.publishing import Draft, output_error
from normcli.retrying import reopened

FORMATS: dict[str, ModuleType] = {
    ".json": json_file,
    ".npz": npz_file,
    ".npy": npy_file,
    ".h5": hdf5_file,
    ".hdf5": hdf5_file,
    ".zarr": zarr_file,
    ".safetensors": safetensors_file,
}
# What other programs write, and only they.
CHECKPOINTS: dict[str, ModuleType] = {
    ".pt": torch_file,
    ".pth": torch_file,
    ".onnx": onnx_file,
    ".keras": keras_file,
    ".mat": matlab_file,
}
# What may be an HDF5 file.
_BY_HDF5 = (hdf5_file, keras_file, matlab_file)
_WRITTEN = f"Known suffixes: {' '.join(FORMATS)}."
_READ = f"Known suffixes: {' '.join((*FORMATS, *CHECKPOINTS))}."
_SUFFIXES = "|".join(suffix[1:] for suffix in (*FORMATS, *CHECKPOINTS))
_FRAGMENT = re.compile(rf"(.*?\.(?:{_SUFFIXES}))#(.*)\Z", re.I | re.S)
_INNER = re.compile(r"(.*?\.(?:h5|hdf5|zarr))/+([^/].*)\Z", re.I | re.S)


def split_path(path: str) -> tuple[str, str]:
    """Return a file and what is named inside of it, which may be empty.

    ``params.safetensors#layers.3.norm`` and ``params.h5/layers/norm`` name a part.
    """
    # What exists under a known suffix is meant as it is, whatever its name looks like.
    if _reader(path) is not None and os.path.lexists(path):
        return path, ""
    matched = _FRAGMENT.match(path) or _INNER.match(path)
    return (matched[1], matched[2].rstrip("/")) if matched else (path, "")


def read_bundle(path: str, choose: Choose = everything) -> Bundle:
    """Read arrays and attributes from a file, in the format of its suffix.

    Parameters
    ----------
    path : str
        The file; ``#prefix`` (or a group inside of HDF5 and Zarr) picks a part of it.
    choose : callable, optional
        Receives the names of the arrays (below the prefix) and returns those to read.

    Raises
    ------
    InputError
        When the file is missing or malformed, its suffix is unknown, or nothing has the prefix.
    SafetyError
        When it holds a pickle or leads to other files.
    """
    file, prefix = split_path(os.fspath(path))
    module = _reader(file)
    if module is None:
        if not os.path.exists(file):
            raise missing_file(file)
        raise InputError(f"The suffix of {file} tells no format that normcli reads.", _READ)
    if module in _BY_HDF5:
        # In a child first, where HDF5 can do no harm: it also asks what kind of file it is.
        require_survival(file, "normcli.bundles.hdf5_trial", "try_bundle")
    return reopened(lambda: _read(module, file, prefix, choose))


def _read(module: ModuleType, file: str, prefix: str, choose: Choose) -> Bundle:
    if module is hdf5_file and keras_file.is_model(file):
        module = keras_file
    full: dict[str, str] = {}

    def below(names: tuple[str, ...]) -> list[str]:
        found = under_prefix(names, prefix, file)
        wanted = {name: found[name] for name in choose(tuple(found))}
        full.update(wanted)
        return list(wanted.values())

    bundle: Bundle = module.read(file, below)
    return Bundle({name: bundle.arrays[own] for name, own in full.items()}, bundle.attrs)


def write_bundle(path: str | os.PathLike[str], bundle: Bundle, overwrite: bool = False) -> None:
    """Write a bundle, at once and complete: nothing bears the name before.

    Parameters
    ----------
    path : str
        The file; its suffix decides the format.
    bundle : Bundle
        What to write.
    overwrite : bool
        Whether an earlier file may be replaced.

    Raises
    ------
    UsageError
        When the suffix is unknown, the format cannot hold the bundle, or the file exists.
    OutputError
        When storage fails; nothing is left then.
    """
    draft = draft_bundle(path, bundle, overwrite)
    try:
        draft.publish()
    except BaseException:
        draft.discard()
        raise


def draft_bundle(
    path: str | os.PathLike[str],
    bundle: Bundle,
    overwrite: bool = False,
    folder: Path | None = None,
) -> Draft:
    """Write a bundle as a complete draft, which the caller publishes or discards.

    Parameters
    ----------
    path, bundle, overwrite
        As of `write_bundle`.
    folder : Path, optional
        Where to write the draft; beside `path` without it.

    Raises
    ------
    UsageError, OutputError
        As `write_bundle`.
    """
    path = os.fspath(path)
    module = _format(path)
    if module is None:
        raise UsageError(f"The suffix of {path} tells no format that normcli writes.", _WRITTEN)
    require_writer(path)
    return _draft(path, lambda name: module.write(name, bundle), overwrite, folder)


def require_writer(path: str) -> None:
    """Raise UsageError where the package that writes a file of this suffix is not installed."""
    if _format(path) is safetensors_file:
        safetensors_file.require_writer(path)


def publish_file(path: str | os.PathLike[str], data: bytes, overwrite: bool = False) -> None:
    """Write bytes to a file, at once and complete: nothing bears the name before.

    Raises
    ------
    UsageError
        When the file exists.
    OutputError
        When storage fails; nothing is left then.
    """
    draft = _draft(os.fspath(path), lambda name: Path(name).write_bytes(data), overwrite, None)
    try:
        draft.publish()
    except BaseException:
        draft.discard()
        raise


def _draft(
    path: str, write: Callable[[str], object], overwrite: bool, folder: Path | None
) -> Draft:
    draft = Draft.beside(path, overwrite, folder)
    try:
        write(str(draft.path))
        draft.sync()
    except OSError as error:
        draft.discard()
        raise output_error(path, error) from error
    except BaseException:
        draft.discard()
        raise
    return draft


def _format(path: str) -> ModuleType | None:
    return FORMATS.get(Path(path).suffix.lower())


def _reader(path: str) -> ModuleType | None:
    if keras_file.is_keras(path):
        return keras_file
    return _format(path) or CHECKPOINTS.get(Path(path).suffix.lower())
