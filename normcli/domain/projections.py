"""What keeps a parameter inside a set after each update: the constraints of Keras.

The norm of a matrix is taken along its first axis, as Keras does by default (``axis=0``), and of a
vector over all of it; a scalar is a vector of one element. Norms are divided by
``norm + 1e-7``, the fuzz factor of Keras, so that its numbers are reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from normcli.errors import UsageError

KINDS = ("nonneg", "max-norm", "unit-norm", "min-max-norm")
FUZZ = 1e-7


@dataclass(frozen=True)
class Projection:
    """One constraint.

    Attributes
    ----------
    kind : {"nonneg", "max-norm", "unit-norm", "min-max-norm"}
        Which.
    low, high : float
        Bounds of the norm.
    rate : float
        How far a norm moves to its bound, from 0 to 1 (min-max-norm).
    """

    kind: str
    low: float = 0.0
    high: float = 1.0
    rate: float = 1.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the projected values."""
        if self.kind == "nonneg":
            return np.where(values < 0, 0.0, values)  # NaN stays NaN
        if values.ndim == 0:
            return self(values.reshape(1)).reshape(())
        norm = np.sqrt(np.square(values).sum(axis=0, keepdims=True))
        if self.kind == "unit-norm":
            return values / (FUZZ + norm)
        wanted = np.clip(norm, self.low, self.high)
        if self.kind == "min-max-norm":
            wanted = self.rate * wanted + (1 - self.rate) * norm
        return values * (wanted / (FUZZ + norm))


def parse_projection(text: str, option: str) -> Projection:
    """Return the constraint that an option names.

    Parameters
    ----------
    text : str
        ``nonneg``, ``unit-norm``, ``max-norm`` or ``max-norm:2``, ``min-max-norm`` or
        ``min-max-norm:0,1`` or ``min-max-norm:0,1,0.5``.
    option : str
        Name of the option, for messages.

    Raises
    ------
    UsageError
        When it is none of these.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise UsageError(f"{option} {text!r} is no constraint.", f"Choose from {', '.join(KINDS)}.")
    try:
        numbers = [float(word) for word in rest.split(",")] if rest else []
    except ValueError:
        numbers = [float("nan")]
    most = {"nonneg": 0, "unit-norm": 0, "max-norm": 1, "min-max-norm": 3}[kind]
    wrong = len(numbers) > most or not all(isfinite(n) and n >= 0 for n in numbers)
    if wrong or (kind == "min-max-norm" and len(numbers) == 1):
        raise UsageError(
            f"{option} {text!r}: the numbers after the colon do not fit.",
            "For example: max-norm:2, or min-max-norm:0,1,0.5 (lowest, highest, rate).",
        )
    if kind == "max-norm":
        return Projection(kind, 0.0, numbers[0] if numbers else 2.0)
    if kind != "min-max-norm":
        return Projection(kind)
    low, high, rate = (*numbers, *(0.0, 1.0, 1.0)[len(numbers) :])
    if low > high or rate > 1:
        raise UsageError(
            f"{option} {text!r}: the lowest norm must not exceed the highest, nor the rate 1."
        )
    return Projection(kind, low, high, rate)
