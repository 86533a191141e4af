"""What a path holds: arrays of a container, fitted statistics, or parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normcli.arrays.access import ArrayEntry
from normcli.arrays.opening import list_arrays
from normcli.arrays.paths import SUFFIXES, parse_path
from normcli.bundles.bundle import Bundle
from normcli.bundles.exact_sums import EXACT_NAMES
from normcli.bundles.formats import CHECKPOINTS, read_bundle, split_path
from normcli.bundles.sketch_arrays import SKETCH_NAMES
from normcli.bundles.statistics_attributes import SCHEMA
from normcli.bundles.statistics_bundle import statistics_from_bundle
from normcli.domain.norm_spec import NormSpec
from normcli.domain.quantile_moments import QuantileMoments, WideQuantileMoments
from normcli.domain.wide_moments import WideMoments
from normcli.domain.wide_moving import Beyond
from normcli.errors import InputError

_BUNDLES = (".json", ".safetensors", ".npz", ".h5", ".hdf5", ".zarr", *CHECKPOINTS)
_PARAMETERS = (".json", ".safetensors", *CHECKPOINTS)

# Arrays above this many values are listed without reading them.
_SHOWN_VALUES = 4


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes
    ----------
    path : str
        Where.
    kind : {"container", "statistics", "parameters"}
        What it is.
    facts : mapping of str to str
        What is true of the whole, for people.
    details : mapping
        The same for programs, as JSON can hold it.
    arrays : tuple of mapping
        One for each array, with ``name``, ``shape``, ``dtype`` and more.
    damage : tuple of InputError
        Why other arrays of a container cannot be listed.
    """

    path: str
    kind: str
    facts: Mapping[str, str]
    details: Mapping[str, Any]
    arrays: tuple[Mapping[str, Any], ...]
    damage: tuple[InputError, ...] = ()

    @property
    def headers(self) -> tuple[str, ...]:
        """Columns of the table."""
        if self.kind == "container":
            return ("name", "shape", "dtype", "chunks", "codecs", "dimensions", "size", "stored")
        return ("name", "shape", "dtype", "values")

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, one row for each array."""
        return [tuple(_cell(array.get(h)) for h in self.headers) for array in self.arrays]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "path": self.path,
            "kind": self.kind,
            **self.details,
            "arrays": [dict(array) for array in self.arrays],
            **({"damaged": [error.message for error in self.damage]} if self.damage else {}),
        }


def inspect_path(text: str) -> Inspection:
    """Return what `text` holds.

    Parameters
    ----------
    text : str
        A container, an array in one, a sidecar or a parameter file.

    Raises
    ------
    InputError
        When it is missing, malformed or of an unknown kind.
    """
    file, part = split_path(text)
    suffix = Path(file).suffix.lower()
    if "#" in text and part and suffix in _BUNDLES:
        return _parameters(text, read_bundle(text))
    if suffix in _BUNDLES and Path(text).exists():
        bundle = _statistics_or_none(text, suffix)
        if bundle is not None:
            return _statistics(text, bundle)
        if suffix in _PARAMETERS:
            return _parameters(text, read_bundle(text))
    elif suffix in _PARAMETERS:
        raise InputError(f"There is no file {text}.")
    damage: list[InputError] = []
    entries = list_arrays(text, damage)
    if damage and not entries:
        raise damage[0]
    if not entries:
        raise InputError(f"{text} holds no arrays.")
    inner = parse_path(text).inner
    return Inspection(
        text,
        "container",
        {},
        {"attributes": _attributes(entries, inner)},
        tuple(_entry(entry, parse_path(text).container.name) for entry in entries),
        tuple(damage),
    )


def _statistics_or_none(text: str, suffix: str) -> Bundle | None:
    if suffix in SUFFIXES:
        try:
            header = read_bundle(text, lambda names: [])
        except InputError:
            return None  # A container of arrays that no bundle would hold.
        if header.attrs.get("schema") != SCHEMA:
            return None
        return read_bundle(text)
    bundle = read_bundle(text)
    return bundle if bundle.attrs.get("schema") == SCHEMA else None


def _statistics(text: str, bundle: Bundle) -> Inspection:
    statistics = statistics_from_bundle(bundle, text)
    spec, source = statistics.spec, statistics.source
    names = [spec.layout.axis_label(axis) for axis in range(spec.layout.ndim)]

    def axes(chosen: tuple[int, ...]) -> str:
        return ", ".join(f"{axis} ({names[axis]})" for axis in chosen) or "none"

    facts = {
        "kind": "fitted statistics",
        "mode": f"{spec.mode}, method {spec.method}"
        + _particulars(spec)
        + (f", convention {spec.convention}" if spec.convention else ""),
        "layout": f"{spec.layout} ({', '.join(names)})",
        "aggregated axes": axes(spec.aggregated),
        "kept axes": axes(spec.kept),
        "scale axes": axes(spec.scale_axes),
        "epsilon": f"{_epsilon(spec)}, non-finite: {spec.nonfinite}",
        "source": f"shape {source.shape}, {source.dtype}",
    }
    for number, given in enumerate(source.inputs, 1):
        label = "input" if len(source.inputs) == 1 else f"input {number}"
        # The array of a file that holds one has no name.
        told = {key: value for key, value in given.items() if value != ""}
        facts[label] = ", ".join(f"{key} {value}" for key, value in told.items())
    if source.part is not None:
        facts["part"] = f"{source.part.number} of {source.part.of}; normcli merge joins them"
    if statistics.moving is not None:
        rule = statistics.moving.rule
        momentum = "cumulative" if rule.momentum is None else f"momentum {rule.momentum:g}"
        facts["moving"] = (
            f"{momentum}, batches of {', '.join(map(str, rule.batch_sizes))}"
            + (" averaged over their observations, " if rule.instances else ", ")
            + f"{rule.variance} variance, {statistics.moving.batches} batches from {rule.start}"
            + (", frozen" if rule.frozen else "")
        )
    if statistics.exact is not None:
        facts["exact sums"] = "kept; merge and --update round once"
    if isinstance(statistics.moments, WideMoments):
        facts["beyond float64"] = _beyond(statistics.moments)
    if isinstance(statistics.moments, WideQuantileMoments):
        facts["beyond float64"] = (
            "integers beyond 2**53; their median is center + center_rest, their quantiles likewise"
        )
    if statistics.moving is not None and statistics.moving.beyond is not None:
        facts["moving beyond float64"] = _moving_beyond(statistics.moving.beyond)
    if isinstance(statistics.moments, QuantileMoments):
        facts["rank error"] = _rank_error(statistics.moments)
    for name, value in statistics.provenance.items():
        facts[name] = str(value)
    details = {**bundle.attrs, "exact_sums": statistics.exact is not None}
    # The limbs of sums and the bytes of sketches are no numbers that anybody could read.
    hidden = (*EXACT_NAMES, *SKETCH_NAMES)
    shown = {name: a for name, a in bundle.arrays.items() if name not in hidden}
    return Inspection(text, "statistics", facts, details, _bundle_arrays(Bundle(shown)))


def _particulars(spec: NormSpec) -> str:
    """Return what a method was told, in words."""
    if spec.range is not None:
        return f" to {spec.range[0]:g}, {spec.range[1]:g}"
    if spec.quantiles is not None:
        return f" by the quantiles {spec.quantiles[0]:g}, {spec.quantiles[1]:g}"
    return "" if spec.p is None else f" of p {spec.p:g}"


def _epsilon(spec: NormSpec) -> str:
    if spec.p is not None:
        return f"norms of {spec.epsilon:g} at least"
    return "none" if spec.divides_by else f"{spec.epsilon:g} ({spec.placement}), ddof {spec.ddof}"


def _beyond(moments: WideMoments) -> str:
    lost = int(np.count_nonzero(moments.m2_exponent))
    if lost:
        return (
            f"the squares of {lost} of {moments.count.size} groups; there m2 is m2_scaled * "
            "4**m2_exponent"
        )
    return "integers beyond 2**53; their mean is mean + mean_rest" + (
        ", their extremes likewise" if not np.any(np.isnan(moments.minimum_rest)) else ""
    )


def _moving_beyond(beyond: Beyond) -> str:
    lost = int(np.count_nonzero(beyond.exponent))
    if lost:
        return (
            f"the squares of {lost} of {beyond.exponent.size} groups; there the moving variance is "
            "moving_variance_scaled * 4**moving_exponent"
        )
    return "integers beyond 2**53; their moving mean is moving_mean + moving_mean_rest"


def _rank_error(moments: QuantileMoments) -> str:
    worst = float(moments.rank_error.max(initial=0))
    told = f"{worst:.2g} of the elements at most, with 99 % confidence" if worst else "none: exact"
    return told + ("; sketches kept to be merged" if moments.sketches is not None else "")


def _parameters(text: str, bundle: Bundle) -> Inspection:
    details = {"attributes": dict(bundle.attrs)}
    if Path(split_path(text)[0]).suffix.lower() in CHECKPOINTS:
        # The configuration of every layer is for programs; people see its numbers among the arrays.
        details = {"attributes": {}, **bundle.attrs}
    return Inspection(text, "parameters", {}, details, _bundle_arrays(bundle))


def _bundle_arrays(bundle: Bundle) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            "name": name or "(the array)",
            "shape": list(values.shape),
            "dtype": str(values.dtype),
            "values": _values(values),
        }
        for name, values in bundle.arrays.items()
    )


def _values(values: np.ndarray) -> str:
    flat = values.reshape(-1)[:_SHOWN_VALUES]
    text = ", ".join(str(int(v)) if values.dtype.kind in "iub" else f"{float(v):.6g}" for v in flat)
    return text + (", …" if values.size > _SHOWN_VALUES else "")


def _attributes(entries: list[ArrayEntry], inner: str) -> dict[str, Any]:
    if len(entries) != 1 and not inner:
        return {}
    return dict(entries[0].info.attrs)


def _entry(entry: ArrayEntry, container: str) -> Mapping[str, Any]:
    info = entry.info
    return {
        "name": entry.path or container,
        "shape": list(info.shape),
        "dtype": str(info.dtype),
        "chunks": None if info.chunks is None else list(info.chunks),
        "shards": None if info.shards is None else list(info.shards),
        "codecs": _codecs(info.codecs),
        "dimensions": None if info.dims is None else list(info.dims),
        "size": info.nbytes,
        "stored": entry.stored_bytes,
    }


def _codecs(codecs: Mapping[str, Any]) -> list[str]:
    """Name the codecs in the order in which they are applied."""
    names: list[str] = []
    for key in ("filters", "serializer", "compressors", "compressor"):
        value = codecs.get(key)
        for codec in value if isinstance(value, list | tuple) else [value]:
            if isinstance(codec, Mapping):
                names.append(str(codec.get("id") or codec.get("name")))
            elif codec:
                names.append(str(codec))
    if codecs.get("shuffle") is True:
        names.append("shuffle")
    if isinstance(codecs.get("compression"), str):
        level = codecs.get("compression_opts")
        names.append(codecs["compression"] + ("" if level is None else f" {level}"))
    if codecs.get("fletcher32") is True:
        names.append("fletcher32")
    return [name for name in names if name != "bytes"]


def _cell(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
