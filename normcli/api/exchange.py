"""Parameters in and out: the functions behind ``normcli extract``, ``init`` and ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normcli.api.convert_options import ConvertOptions
from normcli.api.converting import convert_file
from normcli.api.extracting import extract_value
from normcli.api.initializing import InitOptions, initial_affine, write_initial
from normcli.domain.affine import Affine
from normcli.engine.events import Observer


def extract(path: str | Path, name: str) -> Any:
    """Return one value of a sidecar or a parameter file: the function behind ``normcli extract``.

    Parameters
    ----------
    path : str or Path
        A sidecar, a parameter file or a checkpoint; ``#prefix`` picks a part of it.
    name : str
        ``mean``, ``moving_variance``, ``scale``, ``epsilon``, …

    Returns
    -------
    ndarray, float, int, str, list or None
        None where a setting does not apply.

    Raises
    ------
    InputError
        When the file is missing or malformed, or does not hold that value.
    """
    return extract_value(str(path), name)


def init(
    output: str | Path,
    like: str | Path | None = None,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> Affine:
    """Write a scale and a bias to begin with: the function behind ``normcli init``.

    Parameters
    ----------
    output : str or Path
        The file; its suffix decides the format.
    like : str or Path, optional
        An array or statistics that they shall fit; ``shape="64"`` in place of it.
    overwrite : bool
        Whether an earlier file may be replaced.
    observer : Observer, optional
        Hears which layout was taken.
    **options
        The fields of `InitOptions`: ``scale="narrow-normal"``, ``bias="none"``, ``seed=0``, …

    Returns
    -------
    Affine
        What was written; an absent term is None.

    Raises
    ------
    NormcliError
        As `normcli.errors` lists them.
    """
    name = None if like is None else str(like)
    affine, made = initial_affine(name, InitOptions(**options), observer or Observer())
    write_initial(str(output), affine, made, overwrite)
    return affine


def convert(
    path: str | Path, output: str | Path, *, observer: Observer | None = None, **options: Any
) -> str:
    """Convert statistics to or from another framework: the function behind ``normcli convert``.

    Parameters
    ----------
    path, output : str or Path
        What is read, and what is written.
    observer : Observer, optional
        Hears what the target cannot hold.
    **options
        The fields of `ConvertOptions`: ``target="torch"``, ``layout="NCHW"``, …

    Returns
    -------
    str
        What was written.

    Raises
    ------
    NormcliError
        As `normcli.errors` lists them.

    Examples
    --------
    >>> import normcli, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> stats = normcli.fit("sample_data/patches.zarr", folder / "s.json", layout="NCHW")
    >>> normcli.convert(folder / "s.json", folder / "bn.npz", target="torch", dtype="float64")
    'torch'
    >>> bool((normcli.extract(folder / "bn.npz", "running_mean") == stats.mean).all())
    True
    """
    return convert_file(str(path), str(output), ConvertOptions(**options), observer or Observer())
