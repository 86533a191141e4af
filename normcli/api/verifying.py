"""verify: an output read back, byte by byte, and compared with what is known of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import numpy as np

from normcli.api.capacity import make_scheduler, resources
from normcli.api.options import RunOptions
from normcli.api.verification import Verification, VerifiedArray
from normcli.api.verifying_statistics import SIDECAR_SUFFIXES, is_statistics, verify_statistics
from normcli.api.watching import WatchedSource
from normcli.arrays.access import ArrayEntry, StoredPart
from normcli.arrays.checksummed import has_checksums
from normcli.arrays.manifest import Manifest, manifest_path, read_manifest
from normcli.arrays.opening import list_arrays, open_source
from normcli.arrays.part_keys import parse_span_key
from normcli.arrays.paths import SUFFIXES, ArrayPath, parse_path
from normcli.arrays.stored_parts import (
    PartError,
    StoredFiles,
    StoredSpans,
    damaged_members,
    open_parts,
)
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.domain.moments import Moments
from normcli.engine.collectors import HeldMoments
from normcli.engine.events import Observer, Progress
from normcli.engine.run import Runner
from normcli.engine.schedulers import Scheduler
from normcli.engine.tasks import MeasureJob
from normcli.engine.walk import Walk
from normcli.errors import InputError, NormcliError, TransientError, UsageError
from normcli.kernels.select import choose
from normcli.planning.plan import Pass
from normcli.planning.planner import plan_fit

# Of the same elements in other blocks, moments differ by roundings.
_ROUNDING = 1e-9


def verify_output(output: str, run: RunOptions, observer: Observer) -> Verification:
    """Read an output back and compare it with its manifest, or with its own checksums.

    Parameters
    ----------
    output : str
        Name of an output, or of a statistics file.
    run : RunOptions
        Workers and memory.
    observer : Observer
        Who is told.

    Returns
    -------
    Verification

    Raises
    ------
    InputError
        When there is no such output.
    TransientError
        When storage fails again and again, so that it cannot be told.
    """
    begin = time.perf_counter()
    if output == "-":
        raise UsageError("A pipe cannot be verified.", "Write it to a file.")
    if (
        Path(output).suffix.lower() not in SUFFIXES
        and Path(output).suffix.lower() in SIDECAR_SUFFIXES
    ):
        _require_there(Path(output))
        return verify_statistics(output, begin)
    path = parse_path(output)
    _require_there(path.container)
    beside = manifest_path(path.container)
    verifying = _Verifying(path, run, observer)
    if beside.exists():
        return verifying.by_manifest(beside, begin)
    if is_statistics(output):
        return verify_statistics(output, begin)
    return verifying.by_checksums(begin)


class _Verifying:
    """Verifies one container."""

    def __init__(self, path: ArrayPath, run: RunOptions, observer: Observer) -> None:
        self.path, self.run, self.observer = path, run, observer
        self.damage: list[str] = []

    def by_manifest(self, beside: Path, begin: float) -> Verification:
        """Compare every byte, then the moments of what plain readers find."""
        found: tuple[VerifiedArray, ...] = ()
        parts, nbytes = 0, 0
        try:
            manifest = read_manifest(beside)
        except TransientError:
            raise  # Storage fails; that says nothing of what it holds.
        except NormcliError as error:
            self.damage.append(error.message)
        else:
            parts, nbytes = len(manifest.parts), manifest.nbytes
            if manifest.container != self.path.format:
                self.damage.append(f"{beside} is the manifest of a {manifest.container} container")
            else:
                self._compare(manifest)
            if not self.damage:
                found = self._measure_all(list(manifest.arrays), manifest.written)
        return self._outcome("manifest", str(beside), parts, nbytes, found, (), begin)

    def by_checksums(self, begin: float) -> Verification:
        """Read everything, so that the container's own checksums are compared."""
        if self.path.format == "npz":
            self.damage += damaged_members(self.path.container)
        entries: list[ArrayEntry] = []
        if not self.damage:
            try:
                entries = list_arrays(self.path.text)
                if not entries:
                    self.damage.append(f"{self.path.text} holds no array that can be read")
            except InputError as error:
                self.damage.append(error.message)
        names = [entry.path for entry in entries]
        found = self._measure_all(names, {})
        bare = tuple(
            self._name(entry.path)
            for entry in entries
            if not has_checksums(entry.info, self.path.format)
        )
        nbytes = sum(entry.stored_bytes or 0 for entry in entries)
        return self._outcome("checksums", None, len(names), nbytes, found, bare, begin)

    def _outcome(
        self,
        against: str,
        manifest: str | None,
        parts: int,
        nbytes: int,
        arrays: tuple[VerifiedArray, ...],
        bare: tuple[str, ...],
        begin: float,
    ) -> Verification:
        return Verification(
            str(self.path.container),
            against,
            manifest,
            parts,
            nbytes,
            tuple(self.damage),
            bare,
            () if self.damage else arrays,
            time.perf_counter() - begin,
        )

    def _compare(self, manifest: Manifest) -> None:
        """Compare every part; the structure of a file first, since it tells where the rest is."""
        known = {part.key: part for part in manifest.parts}
        with closing(open_parts(self.path.container, manifest.container)) as stored:
            self.damage += stored.surplus(known)
            work = Pass("verify", Grid((len(known),), (1,)), 0, manifest.nbytes, 0, "stored parts")
            self.observer.started(work, 1, 1)
            begin = time.perf_counter()
            try:
                if isinstance(stored, StoredSpans):
                    spans, blocks = _by_kind(manifest.parts)
                    self._check_all(stored, spans)
                    if not self.damage:
                        self._open_structure(stored, manifest)
                    if not self.damage:
                        self._check_all(stored, blocks)
                else:
                    self._check_all(stored, manifest.parts)
            except BaseException:
                self.observer.failed()
                raise
            self.observer.finished(time.perf_counter() - begin)

    def _open_structure(self, stored: StoredSpans, manifest: Manifest) -> None:
        try:
            stored.open_structure(manifest.arrays)
        except TransientError:
            raise  # Storage fails; that says nothing of what it holds.
        except NormcliError as error:
            self.damage.append(error.message)

    def _check_all(self, stored: StoredFiles | StoredSpans, parts: Iterable[StoredPart]) -> None:
        def check(part: StoredPart) -> str | None:
            try:
                stored.check(part)
            except PartError as error:
                return str(error)
            return None

        with closing(make_scheduler(self.run)) as scheduler:
            workers = scheduler.workers
        for part, problem in _in_threads(check, parts, workers):
            if problem is not None:
                self.damage.append(problem)
            self.observer.advanced(Progress(1, part.nbytes, 0))

    def _measure_all(
        self, names: list[str], promised: Mapping[str, Moments]
    ) -> tuple[VerifiedArray, ...]:
        found = []
        with closing(make_scheduler(self.run)) as scheduler:
            for inner in names:
                one = self._measure(inner, scheduler)
                if one is None:
                    continue
                array, moments = one
                if inner in promised:
                    self.damage += _differences(self._name(inner), moments, promised[inner])
                found.append(
                    VerifiedArray(
                        self._name(inner),
                        array.info.shape,
                        str(array.info.dtype),
                        moments,
                        inner in promised,
                    )
                )
        return tuple(found)

    def _measure(self, inner: str, scheduler: Scheduler) -> tuple[WatchedSource, Moments] | None:
        """Read an array as a whole; what cannot be read is damage."""
        try:
            source = WatchedSource(open_source(self._name(inner)))
        except TransientError:
            raise  # Storage fails; that says nothing of what it holds.
        except NormcliError as error:
            self.damage.append(error.message)
            return None
        with closing(source):
            info = source.info
            if not info.size:
                return source, Moments.identity(())
            geometry = Geometry(info.shape, (), (), info.shape)
            given = resources(self.run, scheduler, self.observer)
            plan = plan_fit(info, geometry, given, choose(info.nbytes), 1)
            work = plan.passes[0]
            held = HeldMoments(())
            job = MeasureJob(source, geometry, Walk(work.grid, ()), plan.kernel)
            Runner(plan, scheduler, self.observer).measure(work, job, held)
        self.damage += source.problems
        return source, held.moments

    def _name(self, inner: str) -> str:
        container = str(self.path.container)
        return f"{container}/{inner}" if inner else container


def _require_there(path: Path) -> None:
    if not path.exists():
        raise InputError(f"There is no {path}.", "Check the name.")


def _by_kind(parts: Iterable[StoredPart]) -> tuple[list[StoredPart], list[StoredPart]]:
    spans: list[StoredPart] = []
    blocks: list[StoredPart] = []
    for part in parts:
        (blocks if parse_span_key(part.key) is None else spans).append(part)
    return spans, blocks


def _in_threads(
    check: Callable[[StoredPart], str | None], parts: Iterable[StoredPart], workers: int
) -> Iterator[tuple[StoredPart, str | None]]:
    """Yield each part with what is wrong with it, a few parts being read at once."""
    pending: dict[Future[str | None], StoredPart] = {}
    waiting = iter(parts)
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for part in itertools.islice(waiting, 2 * workers - len(pending)):
                pending[pool.submit(check, part)] = part
            if not pending:
                return
            done, _ = wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                yield pending.pop(future), future.result()


def _differences(name: str, found: Moments, promised: Moments) -> Iterator[str]:
    spread = float(np.sqrt(np.maximum(promised.variance(), 0))) if promised.count else 0.0
    allowed = {
        "mean": _ROUNDING * (abs(float(promised.mean)) + spread),
        "m2": _ROUNDING * float(promised.m2),
    }
    for field in ("count", "nonfinite", "minimum", "maximum", "mean", "m2"):
        a, b = getattr(found, field).item(), getattr(promised, field).item()
        if a != b and not abs(a - b) <= allowed.get(field, 0):
            yield f"{name}: {field} of its elements is {a!r}, but {b!r} was written"
