"""What ``--overwrite`` does not replace: containers of somebody's data."""

from __future__ import annotations

from pathlib import Path

from normcli.bundles.formats import read_bundle
from normcli.bundles.keras_file import WEIGHTS_SUFFIX
from normcli.errors import InputError, UsageError

_CONTAINERS = (".zarr", ".h5", ".hdf5")


def refuse_foreign_container(path: str, overwrite: bool) -> None:
    """Refuse to replace an HDF5 file or a Zarr store that normcli did not write as parameters.

    Parameters
    ----------
    path : str
        The output.
    overwrite : bool
        Whether an existing one may be replaced; otherwise writing refuses it anyway.

    Raises
    ------
    UsageError
        When it holds something else.
    """
    if not overwrite or not Path(path).exists() or path.lower().endswith(WEIGHTS_SUFFIX):
        return
    if Path(path).suffix.lower() not in _CONTAINERS:
        return
    try:
        foreign = not read_bundle(path, lambda names: []).attrs
    except InputError:
        foreign = True
    if foreign:
        raise UsageError(
            f"{path} holds something else than parameters of normcli, which --overwrite does not "
            "replace.",
            "Choose another name, or remove it.",
        )
