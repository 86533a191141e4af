"""What the user allows and wants of inputs, as a value that travels with every source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputRules:
    """How far an input may reach, and what becomes of chunks that are not stored.

    Attributes
    ----------
    allow_external_refs : bool
        Follow HDF5 links, virtual datasets and raw storage into other files.
    allow_symlinks : bool
        Follow symbolic links that lead out of a Zarr store.
    missing : {"fill", "omit", "error"}, optional
        Read chunks that are not stored as the fill value, leave them out of the statistics, or
        refuse them. None fills too, but refuses an array that claims far more than is stored.
    isolate : bool
        Let child processes alone read and decode the elements of HDF5 and Zarr.
    """

    allow_external_refs: bool = False
    allow_symlinks: bool = False
    missing: str | None = None
    isolate: bool = False


STRICT = InputRules()
