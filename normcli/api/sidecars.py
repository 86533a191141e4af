"""Where statistics are written: at once by a bundle, or by block where they outgrow memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.opening import make_sink, refuse_same
from normcli.arrays.paths import parse_path
from normcli.bundles.formats import require_writer
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.bundles.statistics_file import refuse_other_than_statistics
from normcli.domain.affine import Affine
from normcli.domain.array_info import ArrayInfo
from normcli.domain.exact_moments import most_limbs
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Block
from normcli.domain.moment_kinds import array_names, rest_names
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import SourceDescription
from normcli.engine.collectors import StoredMoments
from normcli.engine.journal import Journal
from normcli.errors import UsageError
from normcli.planning.plan import Pass
from normcli.publishing import refuse_unwritable

SUFFIXES = (".json", ".npz", ".h5", ".hdf5", ".zarr", ".safetensors")
BY_BLOCK = (".zarr", ".h5", ".hdf5", ".npz")
JSON_VALUES = 1_000_000


def check_sidecar(
    path: str,
    overwrite: bool,
    groups: int = 0,
    by_block: bool = False,
    exact: np.dtype | None = None,
    method: str = "zscore",
    sketch: int = 0,
) -> None:
    """Refuse a sidecar that could not be written in the end, before anything is read.

    Parameters
    ----------
    path : str
        Its name.
    overwrite : bool
        Whether an existing one may be replaced.
    groups : int
        Groups that it will hold.
    by_block : bool
        Whether they are written by block.
    exact : numpy.dtype, optional
        Type of the elements whose exact sums it has to hold too.
    method : str
        Decides which arrays it holds.
    sketch : int
        Most bytes of the sketch that it has to hold for each group too.

    Raises
    ------
    UsageError
        For an unknown suffix, an existing file, or more values than the format should hold.
    OutputError
        When the folder is missing or cannot be written to.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path} has no suffix of a statistics file.", f"Use one of {', '.join(SUFFIXES)}."
        )
    require_writer(path)
    most = len(array_names(method))
    if exact is not None:
        # JSON holds eight bytes of a sketch as the text of one number.
        most += 1 + sum(most_limbs(exact)) + (1 + sketch // 8 if sketch else 0)
    values = groups * most
    if (suffix == ".json" and values > JSON_VALUES) or (by_block and suffix not in BY_BLOCK):
        raise UsageError(
            f"{path} would hold {'' if exact is None else 'up to '}{values} values in {groups} "
            f"groups, more than the {JSON_VALUES} that {suffix} is good for.",
            "Write .zarr, .h5 or .npz.",
        )
    refuse_unwritable(Path(path), overwrite)
    refuse_other_than_statistics(path, overwrite)


def refuse_shared(path: str, inputs: Sequence[str], output: str | None = None) -> None:
    """Refuse a sidecar that would replace an input, or the output that it goes with.

    Parameters
    ----------
    path : str
        Its name.
    inputs : sequence of str
        Names of the inputs.
    output : str, optional
        Name of the output.

    Raises
    ------
    UsageError
        When they share a container.
    """
    if Path(path).suffix.lower() in BY_BLOCK:
        refuse_same(path, inputs)
    if output is None or output == "-":
        return
    if Path(path).resolve() == parse_path(output, "output").container.resolve():
        raise UsageError(
            f"{path} would be the output and its statistics at once.",
            "Choose another --stats-out.",
        )


def default_sidecar(output: str, groups: int, method: str) -> str:
    """Return the name of the sidecar of an output with so many groups, by a method."""
    few = groups * len(array_names(method)) <= JSON_VALUES
    return f"{output}.stats.{'json' if few else 'zarr'}"


class StoredSidecar:
    """A sidecar that is written by block.

    Parameters
    ----------
    path : str
        Its name.
    geometry : Geometry
        Extents of the statistics.
    work : Pass
        The pass that measures, whose blocks decide the chunks.
    spec : NormSpec
        What is measured.
    dtype : numpy.dtype
        Type of the data.
    where : str
        Name of the input, for messages.
    overwrite : bool
        Whether an existing sidecar may be replaced.
    affine : Affine
        Scale and bias that are applied with the statistics, which are written whole.
    """

    def __init__(
        self,
        path: str,
        geometry: Geometry,
        work: Pass,
        spec: NormSpec,
        dtype: np.dtype,
        where: str,
        overwrite: bool,
        affine: Affine | None = None,
    ) -> None:
        shape = geometry.statistics_shape
        origin = (0,) * len(geometry.shape)
        chunks = tuple(
            min(s.stop, n)
            for s, n in zip(geometry.region(origin, work.grid.block_shape), shape, strict=True)
        )
        integers = ("count", "nonfinite")
        arrays = {
            name: ArrayInfo(shape, np.dtype(np.int64 if name in integers else np.float64), chunks)
            for name in array_names(spec.method)
        }
        for name in rest_names(spec.method, dtype):
            arrays[name] = ArrayInfo(shape, np.dtype(np.float64), chunks)
        parts = affine or Affine()
        self._affine = {
            name: values
            for name, values in (("scale", parts.scale), ("bias", parts.bias))
            if values is not None
        }
        for name, values in self._affine.items():
            arrays[name] = ArrayInfo(values.shape, values.dtype, values.shape or None)
        self.sink = make_sink(path, arrays, overwrite)
        self.moments = StoredMoments(self.sink, spec, dtype, where)
        self._spec = spec

    def begin(self, journal: Journal | None) -> None:
        """Lay out the container, or take up what an interrupted run stored in it."""
        parts = [] if journal is None else journal.stored_parts()
        if parts and self.sink.resume(parts):
            return
        if parts and journal is not None:
            journal.forget()
        self.sink.create()

    def seal(self, source: SourceDescription, provenance: Mapping[str, Any]) -> None:
        """Add what identifies the statistics, and complete them; only the name is missing then."""
        for name, values in self._affine.items():
            self.sink.write(name, Block(0, (0,) * values.ndim, values.shape), values)
        attrs = statistics_attrs(
            self._spec,
            source,
            provenance=provenance,
            has_scale="scale" in self._affine,
            has_bias="bias" in self._affine,
        )
        self.sink.annotate(attrs)
        self.sink.seal()

    def close(self) -> None:
        """Let go of the container, which stays for an interrupted run to be continued."""
        self.sink.close()
