"""Statistics as other programs read them, and what is said of the differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from normcli.api.convert_options import ConvertOptions
from normcli.bundles import framework_file, kaldi_file, keras_model, onnx_model
from normcli.bundles.keras_file import is_keras
from normcli.domain.affine import Affine
from normcli.domain.channel_norm import WORTH_A_WORD, ChannelNorm, channel_norm
from normcli.domain.conventions import CONVENTIONS
from normcli.domain.layout import Layout
from normcli.domain.statistics import Statistics
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, UsageError

# Names of a scale and a bias.
AFFINE_NAMES = {"torch": ("weight", "bias"), "keras": ("gamma", "beta")}


def export_statistics(
    held: Statistics, output: str, target: str, options: ConvertOptions, observer: Observer
) -> None:
    """Write statistics for another program.

    Parameters
    ----------
    held : Statistics
        What is written.
    output : str
        The file.
    target : str
        ``torch``, ``keras``, ``onnx``, ``sklearn``, ``torchvision`` or ``kaldi``.
    options : ConvertOptions
        Which estimate, divisor and type.
    observer : Observer
        Hears what is folded, rounded or lost.

    Raises
    ------
    DataPolicyError
        When the numbers would differ.
    """
    spec = held.spec
    if options.opset is not None and target != "onnx":
        raise UsageError("--opset is for ONNX models.", "Leave it out.")
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
        instances = held.moving is not None and held.moving.rule.instances
        _export_torch(norm, output, spec.layout, dtype, options, observer, instances)
    elif target == "keras":
        layer = keras_model.batch_layer(spec, norm)
        observer.note(f"for {layer}")
        if is_keras(output):
            keras_model.write_layer(output, layer, dtype, options.overwrite)
        else:
            framework_file.write_keras(output, layer.arrays, norm, dtype, options.overwrite)
    elif target == "onnx":
        node = onnx_model.batch_node(spec, norm).of_opset(options.opset)
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


def export_affine(
    held: Affine,
    path: str,
    epsilon: float,
    output: str,
    target: str,
    options: ConvertOptions,
    observer: Observer,
) -> None:
    """Write a scale and a bias without statistics under the names of torch or Keras.

    Parameters
    ----------
    held : Affine
        What is written.
    path : str
        Where it comes from, for messages.
    epsilon : float
        Of its layer, for the attributes.
    output, target, options, observer
        As of `export_statistics`.

    Raises
    ------
    UsageError
        When the target holds more than names, or options ask for statistics.
    DataPolicyError
        When there is one value for each group of channels, or a number leaves the type.
    """
    if target not in AFFINE_NAMES or is_keras(output):
        raise UsageError(
            f"{path} holds a scale and a bias without statistics, which are arrays by name alone: "
            f"{output} would say more.",
            "Say --to torch or --to keras, and an output such as .npz or .safetensors.",
        )
    for name in ("estimate", "moving_variance", "opset"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: {path} holds a scale and a bias alone.",
                "Leave it out.",
            )
    if held.groups is not None:
        raise DataPolicyError(
            f"{path} holds one scale and bias for each of {held.groups} groups of channels; "
            f"{target} has one for each channel, and the file does not tell how many there are.",
            f"Apply it with --affine, --mode group and --groups {held.groups}, and convert the "
            "sidecar of that.",
        )
    parts = {"scale": held.scale, "bias": held.bias}
    with np.errstate(over="ignore", under="ignore"):
        # What float32 held is written as it was.
        narrow = all(
            np.array_equal(values, values.astype(np.float32))
            for values in parts.values()
            if values is not None
        )
    dtype = np.dtype(options.dtype or (np.float32 if narrow else np.float64))
    framework_file.write_affine_names(
        output, held, AFFINE_NAMES[target], epsilon, dtype, options.overwrite
    )
    statistics = {
        "torch": "running_mean and running_var",
        "keras": "moving_mean and moving_variance",
    }
    absent = [statistics[target], *(name for name, values in parts.items() if values is None)]
    observer.note(
        f"there is no {', and no '.join(absent)}; the layer has epsilon {epsilon:g}, which the "
        "tensors do not hold"
    )


def _export_torch(
    norm: ChannelNorm,
    output: str,
    layout: Layout,
    dtype: np.dtype,
    options: ConvertOptions,
    observer: Observer,
    instances: bool,
) -> None:
    momentum = None if norm.momentum is None else 1.0 - norm.momentum
    kind = "InstanceNorm" if instances else "BatchNorm"
    affine = norm.scale is not None or norm.bias is not None
    if affine and (norm.scale is None or norm.bias is None):
        word = "scale is ones" if norm.scale is None else "bias is zeros"
        observer.note(f"{kind} has both weight and bias, so the absent {word}")
    rank = min(max(layout.ndim - 2, 1), 3)
    observer.note(
        f"for torch.nn.{kind}{rank}d({norm.channels}, eps={norm.epsilon!r}"
        + ("" if momentum is None else f", momentum={round(momentum, 15)!r}")
        + (", momentum=None" if norm.cumulative else "")
        + (f", affine={affine}, track_running_stats=True)" if instances else _affine_text(affine))
        + "; the tensors do not hold epsilon and momentum"
    )
    framework_file.write_torch(output, norm, momentum, dtype, options.overwrite)


def _affine_text(affine: bool) -> str:
    return ")" if affine else ", affine=False)"


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
    if spec.divides_by:
        raise DataPolicyError(
            f"{target} has no layer that divides each observation by {spec.divides_by}, as method "
            f"{spec.method} does.",
            "Fit with --mode batch, whose statistics become a mean and a variance.",
        )
    if target == "onnx":
        node = onnx_model.observation_node(spec, held.affine, held.source.shape)
        node = node.of_opset(options.opset)
        if dtype == np.float64 and node.operator != "GroupNormalization":
            observer.note(f"{node.operator} may measure in float32, as ONNX specifies it")
        onnx_model.write_model(output, node, dtype, spec, options.overwrite)
    elif target == "keras" and is_keras(output):
        layer = keras_model.observation_layer(spec, held.affine, held.source.shape)
        observer.note(f"for {layer}, which measures each observation itself")
        keras_model.write_layer(output, layer, dtype, options.overwrite)
        return
    elif target in ("torch", "keras"):
        framework_file.write_affine_names(
            output, held.affine, AFFINE_NAMES[target], spec.epsilon, dtype, options.overwrite
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
    if norm.divisor not in (own, "unknown"):
        ours = "n" if norm.divisor == "biased" else "n - 1"
        theirs = "n" if own == "biased" else "n - 1"
        observer.note(
            f"the variance has the divisor {ours}, as an apply uses it; {target} keeps "
            f"{theirs} (--moving-variance {own} converts it)"
        )
