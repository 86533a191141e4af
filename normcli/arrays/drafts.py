"""What sinks with a place of their own have in common: a draft in the work folder of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normcli.domain.array_info import ArrayInfo
from normcli.errors import NormcliError, OutputError
from normcli.publishing import Draft, output_error


@dataclass(frozen=True)
class Contents:
    """A container that is to be written, and what it shall hold.

    Attributes
    ----------
    path : Path or str
        Final name of the container.
    arrays : mapping of str to ArrayInfo
        The arrays, by the names that `write` is given.
    paths : mapping of str to str
        Path of each array inside the container; absent or empty where the container is the array.
    overwrite : bool
        Whether an earlier container may be replaced.
    """

    path: Path | str
    arrays: Mapping[str, ArrayInfo]
    paths: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False


class DraftedSink:
    """Arrays that are made under the name of a draft.

    Parameters
    ----------
    contents : Contents
        The container, and what it shall hold.

    Attributes
    ----------
    container : {"npy", "npz", "hdf5", "zarr"}
        Format of the container.
    inside : mapping of str to ArrayInfo
        The arrays, by their paths inside the container.
    """

    resumable = True
    container: str

    def __init__(self, contents: Contents) -> None:
        self.name = str(contents.path)
        self.arrays: Mapping[str, ArrayInfo] = dict(contents.arrays)
        self._paths = {key: contents.paths.get(key, "").strip("/") for key in self.arrays}
        self.inside: Mapping[str, ArrayInfo] = {
            self._paths[key]: info for key, info in self.arrays.items()
        }
        self._draft = Draft.of_run(contents.path, contents.overwrite)

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
