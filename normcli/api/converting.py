"""Statistics to and from what other programs read."""

from __future__ import annotations

from pathlib import Path

from normcli.api.convert_options import FORMATS, ConvertOptions
from normcli.api.exporting import export_affine, export_statistics
from normcli.api.importing import import_statistics, recognized
from normcli.api.sidecars import SUFFIXES
from normcli.bundles.framework_file import TORCH_SUFFIXES
from normcli.bundles.kaldi_file import SUFFIXES as KALDI_SUFFIXES
from normcli.bundles.keras_file import is_keras
from normcli.bundles.parameter_file import write_affine
from normcli.bundles.statistics_file import read_statistics, write_statistics
from normcli.domain.affine import Affine
from normcli.domain.statistics import Statistics
from normcli.engine.events import Observer
from normcli.errors import UsageError


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
    source = options.source or recognized(path)
    target = options.target or _target(output, source)
    if source == "normcli":
        for name in ("epsilon", "layout"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is for files of other programs; statistics have one.")
        held: Statistics | Affine = read_statistics(path)
        epsilon = 0.0
    else:
        held, epsilon = import_statistics(path, source, options, observer)
    if target == "normcli":
        for name in ("estimate", "moving_variance", "dtype", "opset"):
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
        export_affine(held, path, epsilon, output, target, options, observer)
        return target
    export_statistics(held, output, target, options, observer)
    return target


def _target(output: str, source: str) -> str:
    suffix = Path(output).suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if is_keras(output):
        return "keras"
    if suffix in TORCH_SUFFIXES:
        return "torch"
    if suffix in KALDI_SUFFIXES:
        return "kaldi"
    if suffix in SUFFIXES:
        return "normcli"
    raise UsageError(f"The suffix of {output} tells no format.", f"Say --to {'|'.join(FORMATS)}.")
