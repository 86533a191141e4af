"""The attributes of a sidecar: which normalization, of which data, made how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcli.bundles.selection import listed
from normcli.bundles.typed_fields import fields_from_json, fields_to_json
from normcli.domain.dtypes import bfloat16, is_bfloat16, require_real
from normcli.domain.layout import Layout
from normcli.domain.moving_average import MovingRule
from normcli.domain.norm_spec import NormSpec
from normcli.domain.part import Part
from normcli.domain.statistics import SourceDescription
from normcli.errors import InputError

SCHEMA = "normcli-statistics"
SCHEMA_VERSION = 3
# Written where nothing needs more: versions that read only this one take m2 as it stands, which is
# infinite or 0 where squares leave float64.
PLAIN_VERSION = 1
# Those that read this one and no later take a moving variance as it stands, and the items of
# sketches for the elements themselves.
SCALED_VERSION = 2
# What the items of sketches are, where they are not the elements themselves.
SKETCH_ITEMS, INTEGERS = "sketch_items", "integers"
# Provenance with a place of its own in the file; the rest goes under "provenance".
_PROVENANCE = {"version": "normcli_version", "created": "created", "command": "command"}


@dataclass(frozen=True)
class StatisticsAttributes:
    """What the attributes of a sidecar mean.

    Attributes
    ----------
    spec : NormSpec
        Axes and formula.
    source : SourceDescription
        The data that were measured.
    moving : MovingRule or None
        How moving statistics were kept.
    batches : int
        Batches folded into them.
    provenance : mapping
        ``version``, ``created``, ``command`` and whatever else was recorded.
    """

    spec: NormSpec
    source: SourceDescription
    moving: MovingRule | None
    batches: int
    provenance: Mapping[str, Any]


def statistics_attrs(
    spec: NormSpec,
    source: SourceDescription,
    *,
    moving: MovingRule | None = None,
    batches: int = 0,
    provenance: Mapping[str, Any] | None = None,
    has_scale: bool = False,
    has_bias: bool = False,
    scaled: bool = False,
    integer_items: bool = False,
    moving_scaled: bool = False,
) -> dict[str, Any]:
    """Return the attributes of a sidecar, as JSON can hold them.

    Parameters
    ----------
    spec : NormSpec
        Axes and formula.
    source : SourceDescription
        The data that were measured.
    moving : MovingRule, optional
        How moving statistics are kept, where they are.
    batches : int
        Batches folded into them so far.
    provenance : mapping, optional
        ``version``, ``created`` and ``command``; further keys are kept.
    has_scale, has_bias : bool
        Whether a scale and a bias were applied; an absent one is not the same as ones or zeros.
    scaled : bool
        Whether some squares leave float64, and are held in units of a power of two.
    integer_items : bool
        Whether the items of sketches stand for 64-bit integers.
    moving_scaled : bool
        Whether moving variances do so.
    """
    version = SCALED_VERSION if scaled else PLAIN_VERSION
    made = dict(provenance or {})
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION if integer_items or moving_scaled else version,
        **{key: made.pop(name, None) for name, key in _PROVENANCE.items()},
        "epsilon": spec.epsilon,
        "momentum": _momentum_text(moving),
        "spec": fields_to_json(spec, skip=("layout",)) | {"layout": fields_to_json(spec.layout)},
        "source": _source_to_json(source),
        "moving": None if moving is None else fields_to_json(moving) | {"batches": batches},
        "affine": {"scale": has_scale, "bias": has_bias},
        **({SKETCH_ITEMS: INTEGERS} if integer_items else {}),
        "provenance": made,
    }


def attributes_from_attrs(attrs: Mapping[str, Any], path: str) -> StatisticsAttributes:
    """Return what the attributes of the sidecar `path` mean.

    Raises
    ------
    InputError
        When they are of another schema, of a newer version, incomplete, or contradict themselves.
    """
    require_schema(attrs, path)
    document = _mapping(attrs, "spec", path)
    layout = fields_from_json(Layout, document.get("layout"), f"{path}: spec.layout")
    spec = fields_from_json(NormSpec, document, f"{path}: spec", layout=layout)
    _require_axes(spec, path)
    if attrs.get("epsilon", spec.epsilon) != spec.epsilon:
        raise InputError(
            f"{path} says epsilon {attrs['epsilon']!r}, but its spec {spec.epsilon!r}.",
            "Change both, or neither.",
        )
    document = _mapping(attrs, "source", path)
    source = fields_from_json(
        SourceDescription,
        document,
        f"{path}: source",
        dtype=_dtype(document, path),
        part=_part(document, path),
    )
    _require_inputs(source.inputs, path)
    if len(source.shape) != spec.layout.ndim or any(extent < 0 for extent in source.shape):
        raise InputError(
            f"{path}: the source has shape {source.shape}, but the layout {spec.layout} "
            f"{spec.layout.ndim} axes."
        )
    moving, batches = _moving(attrs.get("moving"), path)
    momentum = _momentum_text(moving)
    if attrs.get("momentum", momentum) != momentum:
        raise InputError(
            f"{path} says momentum {attrs['momentum']!r}, but its moving statistics {momentum!r}.",
            "Change both, or neither.",
        )
    made = {name: attrs[key] for name, key in _PROVENANCE.items() if attrs.get(key) is not None}
    extra = attrs.get("provenance", {})
    if not isinstance(extra, Mapping):
        raise InputError(f"{path}: provenance is no JSON object.")
    return StatisticsAttributes(spec, source, moving, batches, made | dict(extra))


def _source_to_json(source: SourceDescription) -> dict[str, Any]:
    document = fields_to_json(source, skip=("dtype", "part"))
    document["dtype"] = _dtype_text(source.dtype)
    if source.part is not None:
        document["part"] = fields_to_json(source.part)
    return document


def _part(document: Mapping[str, Any], path: str) -> Part | None:
    if document.get("part") is None:
        return None
    part: Part = fields_from_json(Part, document["part"], f"{path}: source.part")
    shape = document.get("shape")
    if not isinstance(shape, list) or len(part.cell) != len(shape):
        raise InputError(f"{path}: source.part.cell {part.cell} has another rank than the source.")
    return part


def _require_inputs(inputs: tuple[Mapping[str, Any], ...], path: str) -> None:
    """Require entries that can be compared and shown."""
    for number, entry in enumerate(inputs):
        for key, value in entry.items():
            if not isinstance(value, str | int | float | None):
                raise InputError(
                    f"{path}: source.inputs[{number}].{key} is {value!r}, but must be text or a "
                    "number."
                )


def require_schema(attrs: Mapping[str, Any], path: str) -> None:
    """Raise InputError unless attributes are those of statistics that this version reads."""
    schema, version = attrs.get("schema"), attrs.get("schema_version")
    if schema != SCHEMA:
        held = f"its schema is {schema!r}" if schema else "it has no schema"
        hint = "normcli fit writes statistics; plain arrays go to --mean and --variance."
        if attrs:
            what = listed(attrs)
            hint = f"It holds the attributes {what}; normcli convert reads what other tools write."
        raise InputError(
            f"{path} holds no normcli statistics ({held}).",
            hint,
        )
    if type(version) is not int or version < 1:
        raise InputError(f"{path} has the schema version {version!r}, which is none.")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, newer than the {SCHEMA_VERSION} that this "
            "normcli reads.",
            "Upgrade normcli.",
        )


def _momentum_text(rule: MovingRule | None) -> float | str | None:
    if rule is None:
        return None
    return "cumulative" if rule.momentum is None else rule.momentum


def _moving(document: Any, path: str) -> tuple[MovingRule | None, int]:
    if document is None:
        return None, 0
    where = f"{path}: moving"
    if not isinstance(document, Mapping):
        raise InputError(f"{where} is no JSON object.")
    batches = document.get("batches")
    if type(batches) is not int or batches < 0:
        raise InputError(f"{where}.batches is {batches!r}, but must be a number of batches.")
    rest = {key: value for key, value in document.items() if key != "batches"}
    rule = fields_from_json(MovingRule, rest, where)
    if rule.momentum is not None and not 0 <= rule.momentum <= 1:
        raise InputError(f"{where}.momentum is {rule.momentum!r}, but must be from 0 to 1.")
    if not rule.batch_sizes or min(rule.batch_sizes) < 1:
        raise InputError(f"{where}.batch_sizes is {rule.batch_sizes!r}, but must be sizes.")
    if rule.variance not in ("biased", "unbiased"):
        raise InputError(f"{where}.variance is {rule.variance!r}, neither biased nor unbiased.")
    return rule, batches


def _require_axes(spec: NormSpec, path: str) -> None:
    axes = range(spec.layout.ndim)
    for name in ("aggregated", "kept", "scale_axes"):
        values = getattr(spec, name)
        if list(values) != sorted(set(values)) or any(axis not in axes for axis in values):
            raise InputError(f"{path}: spec.{name} {values} are no ascending axes.")
    if spec.divided_axis is not None and spec.divided_axis not in spec.kept:
        raise InputError(f"{path}: spec.divided_axis {spec.divided_axis} is no kept axis.")
    if spec.layout.names is not None and len(spec.layout.names) != spec.layout.ndim:
        raise InputError(f"{path}: spec.layout has {len(spec.layout.names)} names.")


def _mapping(attrs: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = attrs.get(key)
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {key} is no JSON object.")
    return value


def _dtype_text(dtype: np.dtype) -> str:
    return "bfloat16" if is_bfloat16(dtype) else dtype.str


def _dtype(document: Mapping[str, Any], path: str) -> np.dtype:
    text = document.get("dtype")
    if text == "bfloat16":
        return bfloat16()
    try:
        dtype = np.dtype(text) if isinstance(text, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None:
        raise InputError(f"{path}: source.dtype is {text!r}, which is no type.")
    return require_real(dtype, f"{path}: the source")
