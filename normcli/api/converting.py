"""Statistics to and from what other programs read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from normcli.api.preparing import provenance
from normcli.api.replacing import refuse_foreign_container
from normcli.api.sidecars import SUFFIXES
from normcli.bundles import framework_file, kaldi_file, onnx_model
from normcli.bundles.formats import read_bundle, split_path
from normcli.bundles.keras_file import is_keras
from normcli.bundles.layer_file import Layer, read_layer
from normcli.bundles.parameter_file import write_affine
from normcli.bundles.statistics_attributes import SCHEMA
from normcli.bundles.statistics_file import read_statistics, write_statistics
from normcli.domain.affine import Affine
from normcli.domain.channel_norm import WORTH_A_WORD, ChannelNorm, channel_norm
from normcli.domain.conventions import CONVENTIONS, OWN
from normcli.domain.layout import Layout
from normcli.domain.norm_spec import make_spec
from normcli.domain.statistics import SourceDescription, Statistics
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, InputError, UsageError

FORMATS = ("normcli", "torch", "keras", "onnx", "sklearn", "torchvision", "kaldi")
READABLE = (*FORMATS, "matlab")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What is converted into what.

    Attributes
    ----------
    source, target : str, optional
        One of `READABLE` and of `FORMATS`; None goes by suffix and content.
    estimate : {"pooled", "moving"}, optional
        Which statistics; the moving ones where the fit kept them.
    moving_variance : {"biased", "unbiased"}, optional
        Divisor of the variance that is written; None leaves it as an apply uses it.
    epsilon : float, optional
        Epsilon of a file that states none; the framework's default where it is None.
    layout : str, optional
        Layout of the arrays that statistics from another program are for.
    dtype : {"float32", "float64"}, optional
        Of what is written for a framework; that of the data where it is None.
    overwrite : bool
        Whether an earlier file may be replaced.
    """

    source: str | None = None
    target: str | None = None
    estimate: str | None = None
    moving_variance: str | None = None
    epsilon: float | None = None
    layout: str | None = None
    dtype: str | None = None
    overwrite: bool = False


def convert_file(path: str, output: str, options: ConvertOptions, observer: Observer) -> str:
    """Convert a file, and tell the observer what the target cannot hold.

    Parameters
    ----------
    path : str
        A sidecar, or what another program wrote; ``#prefix`` picks a layer.
    output : str
        The file to write.
    options : ConvertOptions
        From what, to what.
    observer : Observer
        Hears what is lost or folded.

    Returns
    -------
    str
        What was written: ``torch``, ``normcli statistics`` and so on.

    Raises
    ------
    UsageError
        When a format is not told, or options do not go with it.
    InputError
        When the file is malformed, or a package is missing.
    DataPolicyError
        When the numbers would differ.
    """
    refuse_foreign_container(output, options.overwrite)
    source = options.source or _recognized(path)
    target = options.target or _target(output, source)
    if source == "normcli":
        for name in ("epsilon", "layout"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is for files of other programs; statistics have one.")
        held: Statistics | Affine = read_statistics(path)
        epsilon = 0.0
    else:
        held, epsilon = _imported(path, source, options, observer)
    if target == "normcli":
        for name in ("estimate", "moving_variance", "dtype"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for other programs; statistics keep all."
                )
        if isinstance(held, Affine):
            write_affine(output, held, options.overwrite, {"epsilon": epsilon, "source": path})
            return "normcli scale and bias"
        write_statistics(output, held, options.overwrite)
        return "normcli statistics"
    if isinstance(held, Affine):
        raise UsageError(
            f"{path} holds a scale and a bias without statistics.", "Convert it to normcli first."
        )
    _export(held, output, target, options, observer)
    return target


def _export(
    held: Statistics, output: str, target: str, options: ConvertOptions, observer: Observer
) -> None:
    spec = held.spec
    if spec.nonfinite == "omit" and held.moments is not None and held.moments.nonfinite.any():
        observer.note("NaN and infinities were left out of these statistics, and stay NaN")
    dtype = _dtype(options, held)
    if not spec.per_dataset:
        _export_observations(held, output, target, dtype, options, observer)
        return
    norm = channel_norm(held, options.estimate, options.moving_variance)
    _tell_of_constants(norm, target, observer)
    made_by = held.provenance.get("converted_from")
    if isinstance(made_by, dict) and held.moments is None:
        norm = replace(
            norm, momentum=made_by.get("momentum"), batches=int(made_by.get("batches") or 0)
        )
    if target in ("torch", "keras", "onnx"):
        norm = norm.with_scale()
        worst = norm.rounding(dtype)
        if worst > WORTH_A_WORD:
            observer.note(
                f"{dtype} moves normalized values by up to {worst:.1g} standard deviations; "
                "--dtype float64 keeps them"
            )
        _tell_of_divisor(norm, target, observer)
    elif options.dtype is not None:
        raise UsageError(f"--dtype does not go with {target}, whose numbers are text.")
    elif norm.scale is not None or norm.bias is not None:
        observer.note(f"{target} has no scale and bias: they are folded into mean and divisor")
    if norm.cumulative and target in ("keras", "onnx"):
        observer.note(f"the plain average of all batches has no momentum that {target} could hold")
    if target == "torch":
        _export_torch(norm, output, spec.layout, dtype, options, observer)
    elif target == "keras":
        axis = spec.kept[0] if spec.kept[0] < spec.layout.ndim - 1 else -1
        observer.note(
            f"for keras.layers.BatchNormalization(axis={axis}, epsilon={norm.epsilon!r}, "
            f"scale={norm.scale is not None}, center={norm.bias is not None}"
            + (f", momentum={norm.momentum!r})" if norm.momentum is not None else ")")
        )
        framework_file.write_keras(output, norm, dtype, options.overwrite)
    elif target == "onnx":
        node = onnx_model.batch_node(spec, norm)
        onnx_model.write_model(output, node, dtype, spec, options.overwrite)
    elif target == "sklearn":
        if norm.divisor == "unbiased":
            observer.note("StandardScaler keeps the variance with divisor n; this one has n - 1")
        framework_file.write_scaler(output, norm, options.overwrite)
    elif target == "torchvision":
        if held.source.dtype.kind in "iu":
            observer.note(
                f"mean and std are those of the {held.source.dtype} values; ToTensor divides them "
                "by 255, and both numbers must be divided then too"
            )
        framework_file.write_normalize(output, norm, options.overwrite)
    elif target == "kaldi":
        shift, divisor = norm.folded("CMVN")
        count = 1 if norm.count is None else max(1, int(norm.count.max()))
        if norm.epsilon:
            observer.note("epsilon is folded into the sums of squares; CMVN has none")
        kaldi_file.write_cmvn(output, shift, divisor, count, options.overwrite)


def _export_torch(
    norm: ChannelNorm,
    output: str,
    layout: Layout,
    dtype: np.dtype,
    options: ConvertOptions,
    observer: Observer,
) -> None:
    momentum = None if norm.momentum is None else 1.0 - norm.momentum
    affine = norm.scale is not None or norm.bias is not None
    if affine and (norm.scale is None or norm.bias is None):
        word = "scale is ones" if norm.scale is None else "bias is zeros"
        observer.note(f"BatchNorm has both weight and bias, so the absent {word}")
    rank = min(max(layout.ndim - 2, 1), 3)
    observer.note(
        f"for torch.nn.BatchNorm{rank}d({norm.channels}, eps={norm.epsilon!r}"
        + ("" if momentum is None else f", momentum={round(momentum, 15)!r}")
        + (", momentum=None" if norm.cumulative else "")
        + (")" if affine else ", affine=False)")
        + "; the tensors do not hold epsilon and momentum"
    )
    framework_file.write_torch(output, norm, momentum, dtype, options.overwrite)


def _export_observations(
    held: Statistics,
    output: str,
    target: str,
    dtype: np.dtype,
    options: ConvertOptions,
    observer: Observer,
) -> None:
    """Convert a normalization of each observation, which has parameters but no statistics."""
    spec = held.spec
    for name in ("estimate", "moving_variance"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} needs statistics of a dataset; those of mode "
                f"{spec.mode} belong to each observation."
            )
    if target == "onnx":
        node = onnx_model.observation_node(spec, held.affine, held.source.shape)
        if dtype == np.float64 and node.operator != "GroupNormalization":
            observer.note(f"{node.operator} may measure in float32, as ONNX specifies it")
        onnx_model.write_model(output, node, dtype, spec, options.overwrite)
    elif target in ("torch", "keras"):
        names = ("weight", "bias") if target == "torch" else ("gamma", "beta")
        framework_file.write_affine_names(
            output, held.affine, names, spec.epsilon, dtype, options.overwrite
        )
    else:
        raise DataPolicyError(
            f"The statistics of mode {spec.mode} belong to each observation; {target} holds those "
            "of a dataset.",
            "Fit with --mode batch.",
        )
    observer.note(
        f"only scale, bias and epsilon {spec.epsilon:g} are kept: {target} measures each "
        "observation itself, as mode " + spec.mode + " does"
    )


def _imported(
    path: str, source: str, options: ConvertOptions, observer: Observer
) -> tuple[Statistics | Affine, float]:
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
            return Affine(scale, bias), epsilon
        mean, variance = layer.mean, layer.variance
        momentum = None if layer.momentum is None else system.old_weight(layer.momentum)
        batches = layer.batches or 0
        divisor = str(layer.attrs.get("variance_divisor", system.moving_variance))
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


def _recognized(path: str) -> str:
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


def _target(output: str, source: str) -> str:
    suffix = Path(output).suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if is_keras(output):
        return "keras"
    if suffix in kaldi_file.SUFFIXES:
        return "kaldi"
    if suffix in SUFFIXES:
        return "normcli"
    raise UsageError(f"The suffix of {output} tells no format.", f"Say --to {'|'.join(FORMATS)}.")


def _dtype(options: ConvertOptions, held: Statistics) -> np.dtype:
    if options.dtype is not None:
        return np.dtype(options.dtype)
    return np.dtype(np.float64 if held.source.dtype == np.float64 else np.float32)


def _tell_of_constants(norm: ChannelNorm, target: str, observer: Observer) -> None:
    constant = 0 if norm.constant is None else int(np.count_nonzero(norm.constant))
    if not constant:
        return
    what = f"{constant} of {norm.channels} channels were constant; an apply gives their bias"
    if target in ("torch", "keras", "onnx"):
        observer.note(f"{what}, and a scale of 0 does the same")
    else:
        observer.warn(f"{what}. {target} divides them by 1: other values give other numbers.")


def _tell_of_divisor(norm: ChannelNorm, target: str, observer: Observer) -> None:
    own = CONVENTIONS[target].moving_variance
    if norm.divisor != own:
        ours = "n" if norm.divisor == "biased" else "n - 1"
        theirs = "n" if own == "biased" else "n - 1"
        observer.note(
            f"the variance has the divisor {ours}, as an apply uses it; {target} keeps "
            f"{theirs} (--moving-variance {own} converts it)"
        )
