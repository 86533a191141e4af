"""Statistics, or scale and bias alone, from what other programs wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from normcli.api.convert_options import READABLE, ConvertOptions
from normcli.api.preparing import provenance
from normcli.bundles import framework_file, kaldi_file
from normcli.bundles.formats import read_bundle, split_path
from normcli.bundles.keras_file import is_keras
from normcli.bundles.layer_file import Layer, read_layer
from normcli.bundles.statistics_attributes import SCHEMA
from normcli.domain.affine import Affine
from normcli.domain.conventions import CONVENTIONS, OWN
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.domain.statistics import SourceDescription, Statistics
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError


def import_statistics(
    path: str, source: str, options: ConvertOptions, observer: Observer
) -> tuple[Statistics | Affine, float]:
    """Read what another program wrote.

    Parameters
    ----------
    path : str
        The file; ``#prefix`` picks a layer.
    source : str
        The program.
    options : ConvertOptions
        Layout, and the epsilon of a file that states none.
    observer : Observer
        Hears which defaults were taken.

    Returns
    -------
    Statistics or Affine
        Scale and bias alone where the file holds no statistics.
    float
        Epsilon.

    Raises
    ------
    InputError, DataPolicyError
        When the file is malformed, or a variance is negative.
    """
    momentum: float | None = None
    batches, divisor, dtype = 0, "biased", np.dtype(np.float64)
    scale = bias = None
    count: float | None = None
    if source in ("sklearn", "torchvision", "kaldi"):
        if options.epsilon is not None:
            raise UsageError(f"--epsilon: {source} has none; its divisor is used as it is.")
        epsilon = 0.0
        if source == "kaldi":
            mean, variance, count = kaldi_file.read_cmvn(path)
        else:
            keys = ("mean_", "scale_") if source == "sklearn" else ("mean", "std")
            mean, deviation = framework_file.read_divisors(path, *keys)
            variance = deviation * deviation
            # A negative divisor is a scale of -1.
            scale = np.sign(deviation) if np.any(deviation < 0) else None
    else:
        layer = read_layer(path)
        system = CONVENTIONS.get(source, OWN)
        epsilon = _epsilon(layer, source, options, observer)
        scale, bias, dtype = layer.scale, layer.bias, layer.dtype
        if layer.mean is None or layer.variance is None:
            if options.layout is not None:
                raise UsageError(f"--layout: {path} holds no statistics, which have one.")
            observer.note(f"{path} holds no statistics; scale and bias alone are converted")
            return Affine(scale, bias, layer.groups), epsilon
        mean, variance = layer.mean, layer.variance
        momentum = None if layer.momentum is None else system.old_weight(layer.momentum)
        batches = layer.batches or 0
        stated = layer.attrs.get("variance_divisor")
        divisor = stated if stated in ("biased", "unbiased") else system.moving_variance
    parts = (("mean", mean), ("variance", variance), ("scale", scale), ("bias", bias))
    flat = {name: None if values is None else values.reshape(-1) for name, values in parts}
    mean, variance = mean.reshape(-1), variance.reshape(-1)
    for name, values in flat.items():
        if values is not None and values.shape != mean.shape:
            raise InputError(
                f"{path}: the {name} has {values.size} values, but the mean has {mean.size}."
            )
    layout = Layout(options.layout.upper() if options.layout else "NC")
    if layout.channel_axis is None:
        raise UsageError(f"--layout {layout} has no C, along which the statistics run.")
    if options.layout is None:
        observer.note("layout NC; --layout sets the one of your arrays, such as NCHW")
    spec = make_spec(layout, dtype, epsilon=epsilon)
    shape = tuple(mean.size if axis == layout.channel_axis else 0 for axis in range(layout.ndim))
    described = SourceDescription(shape, dtype, None, ({"path": path},))
    made = {
        "converted_from": {
            "format": source,
            "momentum": momentum,
            "batches": batches,
            **({"count": count} if count is not None else {}),
        },
        "variance_divisor": divisor,
    }
    affine = Affine(flat["scale"], flat["bias"])
    held = Statistics(
        spec, described, None, (mean, variance), None, affine, {**provenance(), **made}
    )
    return held, epsilon


def _epsilon(layer: Layer, source: str, options: ConvertOptions, observer: Observer) -> float:
    if layer.epsilon is not None:
        if options.epsilon is not None and options.epsilon != layer.epsilon:
            raise UsageError(
                f"--epsilon {options.epsilon:g} contradicts the file, which states "
                f"{layer.epsilon!r}.",
                "Leave --epsilon out.",
            )
        return layer.epsilon
    if options.epsilon is not None:
        return options.epsilon
    default = CONVENTIONS.get(source, OWN).epsilon
    observer.note(f"the file states no epsilon; {default:g} is the default of {source}")
    return default


def recognized(path: str) -> str:
    """Return which program wrote a file, by its suffix or its names."""
    file = split_path(path)[0]
    suffix = Path(file).suffix.lower()
    by_suffix = {".onnx": "onnx", ".pt": "torch", ".pth": "torch", ".mat": "matlab"}
    if is_keras(file):
        return "keras"
    if suffix in by_suffix:
        return by_suffix[suffix]
    if suffix in kaldi_file.SUFFIXES:
        return "kaldi"
    names: list[str] = []

    def look(found: tuple[str, ...]) -> list[str]:
        names.extend(found)
        return []

    bundle = read_bundle(path, look)
    if bundle.attrs.get("schema") == SCHEMA:
        return "normcli"
    leaves = {name.replace("/", ".").rpartition(".")[2].removesuffix(":0") for name in names}
    for format_, signs in (
        ("sklearn", {"mean_", "scale_"}),
        ("torchvision", {"mean", "std"}),
        ("torch", {"running_mean", "running_var"}),
        ("keras", {"moving_mean", "moving_variance"}),
    ):
        if signs <= leaves:
            return format_
    for format_, sign in (("torch", "weight"), ("keras", "gamma")):
        if sign in leaves:
            return format_
    raise UsageError(
        f"It is not clear which program wrote {path}.", f"Say --from {'|'.join(READABLE)}."
    )
