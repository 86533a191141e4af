"""Looks at every worker before anything is read: versions, input files, output folder, memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normcli.arrays.paths import parse_path
from normcli.engine.worker import Survey, appears, look, remove_probes, survey, write_probe
from normcli.errors import InputError, TransientError
from normcli.planning.memory import MIB
from normcli.publishing import work_folder

# What has to agree: normcli in full, the others in their first two numbers.
PACKAGES = ("normcli", "numpy", "zarr", "h5py", "numba")

# dask lets a worker begin nothing new above 80 % of its memory limit, and ends it at 95 %.
SHARE_OF_LIMIT = 0.8

_TRIES = 20
_TRY_SECONDS = 0.25

# Compiled kernels take up to 160 MiB of a process; workers of less than this do without.
LIMIT_FOR_COMPILED = 512 * MIB


class Preflight:
    """Compares the workers of a cluster with this process.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler.

    Attributes
    ----------
    memory : int or None
        Bytes that the worker process with the least has for blocks; known once inputs have been
        compared.
    compiled : bool
        Whether every worker has the memory for compiled kernels.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.memory: int | None = None
        self._limits = {
            address: facts.get("memory_limit") or 0
            for address, facts in client.scheduler_info()["workers"].items()
        }
        self.compiled = not any(0 < n < LIMIT_FOR_COMPILED for n in self._limits.values())

    def compare_versions(self) -> None:
        """Refuse a scheduler or workers with other versions than ours.

        Raises
        ------
        TransientError
            Naming the first that differs, and in what.
        """
        found = self._client.get_versions(packages=list(PACKAGES))
        ours = found["client"]["packages"]
        others = {"The scheduler": found["scheduler"]}
        others.update({f"The worker {k}": v for k, v in found["workers"].items()})
        for who, facts in others.items():
            theirs = facts["packages"] if isinstance(facts, Mapping) else {}
            for package in ("python", *PACKAGES):
                a, b = _relevant(package, ours), _relevant(package, theirs)
                if a != b:
                    has = "has no" if b is None else f"has version {b} of"
                    raise TransientError(
                        f"{who} {has} {package}, but this process has {a}.",
                        "Start scheduler and workers in the same environment as normcli.",
                    )

    def compare_inputs(self, inputs: Sequence[str], nbytes: int) -> None:
        """Refuse workers that see no or another input than this process does.

        Parameters
        ----------
        inputs : sequence of str
            Names of the input arrays.
        nbytes : int
            Decoded size of all of them.

        Raises
        ------
        InputError
            Naming the worker, the file and what differs.
        """
        parsed = [parse_path(name) for name in inputs]
        places = [(str(path.container.absolute()), path.inner) for path in parsed]
        ours = [seen for place in places for seen in look(*place)]
        surveys: Mapping[str, Survey] = self._ask(survey, places, nbytes if self.compiled else 0)
        for address, facts in surveys.items():
            who = f"The worker {address} on {facts.host}"
            for mine, theirs in zip(ours, facts.files, strict=False):
                if theirs.size is None:
                    raise InputError(
                        f"{who} cannot see {mine.path}: {theirs.error}.",
                        "Put the input on storage that all nodes share, under the same name.",
                    )
                for what in ("path", "size", "mtime_ns"):
                    a, b = getattr(mine, what), getattr(theirs, what)
                    if a != b:
                        raise InputError(
                            f"{who} sees another {mine.path}: its {what} is {b}, here it is {a}.",
                            "If it is a copy, copy it with its time (cp -p); if it was written "
                            "just now, wait until all nodes see it.",
                        )
            if len(facts.files) != len(ours):
                raise InputError(
                    f"{who} sees {len(facts.files)} files of {', '.join(inputs)}, not {len(ours)}.",
                    "Wait until all nodes see the same files.",
                )
        self.memory = self._room(surveys)

    def try_output(self, output: str) -> None:
        """Refuse workers that could not write beside the output, or write somewhere else.

        Raises
        ------
        InputError
            Naming the worker and the folder.
        """
        container = parse_path(output, "output").container
        place = work_folder(container)
        folder = str(place if place.is_dir() else container.absolute().parent)
        probes: Mapping[str, tuple[str, str]] = self._ask(write_probe, folder)
        paths = [path for path, _ in probes.values() if path]
        try:
            for address, (path, error) in probes.items():
                if not path:
                    raise InputError(
                        f"The worker {address} cannot write to {folder}: {error}.",
                        "Write to storage that all nodes share, under the same name.",
                    )
                if not appears(Path(path)):
                    raise InputError(
                        f"What the worker {address} writes to {folder} does not appear here.",
                        "Write to storage that all nodes share, under the same name.",
                    )
        finally:
            self._client.run(remove_probes, paths, on_error="ignore")
            remove_probes(paths)

    def _ask(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """Call a function in every worker; one that ends meanwhile is not asked.

        The scheduler may not know yet that a worker ended, so one whose connection breaks is asked
        again for some seconds.
        """
        answers: dict[str, Any] = {}
        asked = None
        for _ in range(_TRIES):
            answers |= self._client.run(function, *arguments, workers=asked, on_error="return")
            alive = self._client.nthreads()
            broken = [a for a in answers if a in alive and isinstance(answers[a], OSError)]
            if not broken:
                break
            time.sleep(_TRY_SECONDS)
            asked = [address for address in broken if address in self._client.nthreads()]
            if not asked:
                break
        alive = self._client.nthreads()
        for address, answer in answers.items():
            if isinstance(answer, BaseException) and address in alive:
                raise TransientError(
                    f"The worker {address} cannot work for normcli: {answer}.",
                    "See its log; start workers in the same environment as normcli.",
                ) from answer
        return {key: a for key, a in answers.items() if not isinstance(a, BaseException)}

    def _room(self, surveys: Mapping[str, Survey]) -> int | None:
        rooms = []
        for address, facts in surveys.items():
            room = facts.available
            limit = self._limits.get(address, 0)
            if limit:
                room = min(room, int(SHARE_OF_LIMIT * limit) - facts.resident)
            rooms.append(max(1, room))
        return min(rooms, default=None)


def _relevant(package: str, versions: Mapping[str, str | None]) -> str | None:
    version = versions.get(package)
    if version is None or package == "normcli":
        return version
    return ".".join(version.split(".")[:2])
