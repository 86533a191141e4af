"""The options of a conversion as a value, with the names and defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass

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
    opset : int, optional
        Version of the operators of an ONNX model: 18 to 23; the oldest of 21 and 23 that has
        the operator where it is None. GroupNormalization has parameters of groups before 21.
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
    opset: int | None = None
    overwrite: bool = False
