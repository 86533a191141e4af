"""What sinks with a place of their own have in common: a draft in the work folder of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normcli.domain.array_info import ArrayInfo
from normcli.errors import NormcliError, OutputError
from normcli.publishing import Draft, output_error


class DraftedSink:
    """Arrays that are made under the name of a draft.

    Parameters
    ----------
    path : Path or str
        Final name of the container.
    arrays : mapping of str to ArrayInfo
        The arrays, by the names that `write` is given.
    overwrite : bool
        Whether an earlier container may be replaced.
    paths : mapping of str to str, optional
        Path of each array inside the container; empty where the container is the array.

    Attributes
    ----------
    container : {"npy", "npz", "hdf5", "zarr"}
        Format of the container.
    inside : mapping of str to ArrayInfo
        The arrays, by their paths inside the container.
    """

    resumable = True
    container: str

    def __init__(
        self,
        path: Path | str,
        arrays: Mapping[str, ArrayInfo],
        overwrite: bool = False,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self.name = str(path)
        self.arrays: Mapping[str, ArrayInfo] = dict(arrays)
        self._paths = {key: (paths or {}).get(key, "").strip("/") for key in self.arrays}
        self.inside: Mapping[str, ArrayInfo] = {
            self._paths[key]: info for key, info in self.arrays.items()
        }
        self._draft = Draft.of_run(path, overwrite)

    @property
    def draft(self) -> Draft:
        """The container in the making."""
        return self._draft

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Do nothing: the format has no attributes."""

    def publish(self) -> None:
        """Give the container its final name."""
        self._draft.publish()
        self._sweep()
        self._leave()

    def close(self) -> None:
        """Close the handles of this process."""

    def discard(self) -> None:
        """Remove everything written so far."""
        self.close()
        self._draft.discard()
        self._sweep()
        self._leave()

    def _sweep(self) -> None:
        """Remove what lies beside the draft."""

    def _leave(self) -> None:
        # Where the run owns its folder, a lock is left in it, and this fails.
        with contextlib.suppress(OSError):
            self._draft.path.parent.rmdir()

    def _failed(self, error: Exception) -> NormcliError:
        if isinstance(error, NormcliError):
            return error
        if isinstance(error, OSError):
            return output_error(self.name, error)
        return OutputError(f"{self.name} could not be written: {error}.")

    def _torn(self, what: str) -> OutputError:
        return OutputError(
            f"{self.name} is not what was written: {what}.",
            "Is the storage sound? Start again with --restart.",
        )
