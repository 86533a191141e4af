"""Statistics, scale and bias from where the user keeps them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from normcli.api.continuing import digest
from normcli.api.options import ApplyOptions
from normcli.arrays.access import ArraySource
from normcli.arrays.opening import open_source
from normcli.bundles.formats import read_bundle, split_path
from normcli.bundles.parameter_file import (
    read_affine,
    read_epsilon,
    read_mean,
    read_term,
    read_variance,
)
from normcli.bundles.statistics_bundle import statistics_document
from normcli.bundles.statistics_file import read_statistics, read_statistics_header
from normcli.domain.affine import Affine
from normcli.domain.geometry import Geometry
from normcli.domain.moment_kinds import RESTS, kind_of
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import SourceDescription, Statistics, require_whole
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError
from normcli.planning.planner import GROUPS_IN_MEMORY

# Files that say which epsilon their layers use.
MODELS = (".onnx", ".keras")
BY_BLOCK = (".zarr", ".h5", ".hdf5", ".npz")


@dataclass(frozen=True)
class Known:
    """Statistics that need not be measured.

    Attributes
    ----------
    statistics : Statistics
        The statistics; without moments where they are too many for memory.
    stored : dict of str to ArraySource, or None
        The arrays of their moments, where they are read by block.
    """

    statistics: Statistics
    stored: dict[str, ArraySource] | None = None

    def identity(self) -> object:
        """Return what tells these statistics from all others, as JSON can hold it."""
        if self.stored is not None:
            return [source.identity() for source in self.stored.values()]
        return digest(statistics_document(replace(self.statistics, provenance={})))


def known_statistics(options: ApplyOptions) -> Known | None:
    """Return the statistics of ``--stats``, or None.

    Raises
    ------
    UsageError
        When ``--mean`` or ``--variance`` is given as well.
    """
    if options.stats is None:
        return None
    if options.mean is not None or options.variance is not None:
        raise UsageError("--stats excludes --mean and --variance, which replace it.")
    given = getattr(options.stats, "statistics", options.stats)
    if isinstance(given, Statistics):
        require_whole(given, "--stats")
        return Known(given)
    path = str(given)
    if Path(path).suffix.lower() in BY_BLOCK and Path(path).exists():
        header = read_statistics_header(path)
        if header is not None:
            require_whole(header, path)
        held = _names(path)
        # A mean and a variance that were supplied have no counts.
        if header is not None and "count" in held:
            count = open_source(f"{path}/count")
            if count.info.size > GROUPS_IN_MEMORY:
                rests = tuple(name for name in RESTS if name in held)
                return Known(header, stored_arrays(path, header.spec.method, rests))
            count.close()
    statistics = read_statistics(path)
    require_whole(statistics, path)
    # Nothing is added to them here.
    return Known(statistics.alone())


def _names(path: str) -> list[str]:
    """Return the names of the arrays in a file."""
    held: list[str] = []

    def look(names: tuple[str, ...]) -> list[str]:
        held.extend(names)
        return []

    read_bundle(path, look)
    return held


def stored_arrays(path: str, method: str, rests: tuple[str, ...]) -> dict[str, ArraySource]:
    """Return the arrays of the moments in a sidecar, to be read by block.

    Parameters
    ----------
    path : str
        The sidecar.
    method : str
        Decides which arrays these are.
    rests : tuple of str
        Which arrays of what rounding took away are among them.
    """
    return {name: open_source(f"{path}/{name}") for name in (*kind_of(method).names(), *rests)}


def supplied_statistics(
    options: ApplyOptions, spec: NormSpec, geometry: Geometry, source: SourceDescription
) -> Statistics | None:
    """Return the statistics of ``--mean`` and ``--variance``, or None.

    Raises
    ------
    UsageError
        When the method needs one that is missing.
    InputError
        When their shape is not that of the statistics.
    """
    if options.mean is None and options.variance is None:
        return None
    if spec.divides_by:
        raise UsageError(
            f"--method {spec.method} divides by {spec.divides_by}; --mean and --variance hold "
            "none.",
            f"Fit from the data: normcli fit INPUT --method {spec.method} -o STATS",
        )
    needed = {"zscore": (True, True), "rms": (True, True), "center": (True, False)}
    for name, need in zip(
        ("mean", "variance"), needed.get(spec.method, (False, True)), strict=True
    ):
        if need and getattr(options, name) is None:
            raise UsageError(f"--method {spec.method} needs --{name} as well.")
    shape = geometry.statistics_shape
    given = [np.zeros(shape), np.ones(shape)]
    for i, (name, read) in enumerate((("mean", read_mean), ("variance", read_variance))):
        path = getattr(options, name)
        if path is not None:
            given[i] = _shaped(read(str(path)), name, str(path), shape, spec)
    return Statistics(spec, source, None, given=(given[0], given[1]))


def warn_of_epsilon(options: ApplyOptions, spec: NormSpec, observer: Observer) -> None:
    """Warn where the model that mean and variance come from was made for another epsilon."""
    path = options.variance
    if path is None or spec.epsilon_given:
        return
    file = split_path(str(path))[0]
    stated = read_epsilon(str(path)) if file.lower().endswith(MODELS) else None
    if stated is not None and not np.isclose(stated, spec.epsilon, rtol=1e-6, atol=0):
        observer.warn(
            f"{file} was made for epsilon {stated:g}, but {spec.epsilon:g} is used.",
            f"--epsilon {stated!r} is that of the model.",
        )


def require_fit(known: Known, geometry: Geometry, where: str) -> None:
    """Refuse statistics of other extents than this array has.

    Raises
    ------
    InputError
        With both shapes.
    """
    own = known.stored["count"].info.shape if known.stored else known.statistics.shape
    if own != geometry.statistics_shape:
        spec = known.statistics.spec
        axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.kept) or "none"
        raise InputError(
            f"The statistics have shape {own}, but {where} of shape {geometry.shape} needs "
            f"{geometry.statistics_shape} (kept axes: {axes}).",
            "Fit on an array of the same kind, or check --layout.",
        )


def affine_for(
    options: ApplyOptions, geometry: Geometry, spec: NormSpec, recorded: Affine
) -> Affine:
    """Return scale and bias in the shape of the scale axes.

    ``--scale`` and ``--bias`` come before ``--affine``, and that before what the statistics
    recorded; ``none`` drops a term.
    """
    affine = recorded
    # Parameters that a file has by groups become those of the channels.
    divided = spec.scale_axes == (spec.divided_axis,)
    groups = spec.groups if divided else None
    channels = geometry.scale_shape[0] if divided else 0
    if isinstance(options.affine, Affine):
        affine = options.affine
    elif options.affine is not None:
        affine = read_affine(str(options.affine))
    affine = affine.of_channels(groups, channels)
    for name in ("scale", "bias"):
        path = getattr(options, name)
        if path is not None:
            term = Affine() if str(path) == "none" else read_term(str(path), name)
            values = getattr(term.of_channels(groups, channels), name)
            affine = replace(affine, **{name: values})
    axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.scale_axes) or "none (a scalar)"
    return affine.fitted(geometry.scale_shape, axes)


def _shaped(
    values: np.ndarray, name: str, path: str, shape: tuple[int, ...], spec: NormSpec
) -> np.ndarray:
    if tuple(n for n in values.shape if n != 1) != tuple(n for n in shape if n != 1):
        axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.kept) or "none"
        raise InputError(
            f"The {name} in {path} has shape {values.shape}, but the statistics need {shape} "
            f"(kept axes: {axes}).",
            "Nothing is broadcast: give one value for each group.",
        )
    return values.reshape(shape)
