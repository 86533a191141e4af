"""The defaults of other systems, so that their numbers can be reproduced exactly.

Sources: Wolfram NormalizationLayer and BatchNormalizationLayer, Keras 3, MATLAB
instanceNormalizationLayer and batchNormalizationLayer, PyTorch 2 (``torch.nn``), ONNX operators
BatchNormalization-15 and LayerNormalization-17, scikit-learn 1.9 (``StandardScaler``).
"""

from __future__ import annotations

from dataclasses import dataclass

from normcli.errors import UsageError


@dataclass(frozen=True)
class Convention:
    """The defaults of one system.

    Attributes
    ----------
    epsilon, rms_epsilon : float or None
        Added to the variance, or to the mean square; None means the machine epsilon of the type.
    momentum : float
        Default of the moving average, in the system's own sense.
    momentum_weighs_new : bool
        Whether momentum is the weight of the new value (PyTorch, MATLAB) or of the old one.
    moving_variance : {"biased", "unbiased"}
        Divisor n or n - 1 of what the moving variance is fed.
    layer_axes : {"last", "example", "features"}
        Which axes the mode ``layer`` aggregates: the last one, all of one example but its first
        (Wolfram's ``2;;All``), or channel and space (MATLAB's layernorm).
    unit_constants : bool
        Whether groups that cannot be told from constant ones are divided by 1 (scikit-learn).
    norm_epsilon : float
        The least norm that the method ``lp`` divides by.
    """

    epsilon: float
    rms_epsilon: float | None
    momentum: float
    momentum_weighs_new: bool
    moving_variance: str
    layer_axes: str
    unit_constants: bool = False
    norm_epsilon: float = 0.0

    def defaults(self) -> dict[str, float | str | bool | None]:
        """Return the defaults by name, as people and programs read them."""
        return {
            "epsilon": self.epsilon,
            "rms_epsilon": "machine" if self.rms_epsilon is None else self.rms_epsilon,
            "ddof": 0,
            "momentum": None if self is OWN else self.momentum,
            "momentum_weighs": "new" if self.momentum_weighs_new else "old",
            "moving_variance": self.moving_variance,
            "layer_axes": self.layer_axes,
            "constant_groups": _CONSTANTS[self is OWN, self.unit_constants],
        }

    def old_weight(self, momentum: float) -> float:
        """Return the weight of the old value for a momentum in this system's sense."""
        return 1.0 - momentum if self.momentum_weighs_new else momentum


# What becomes of groups that hold one value, by whether it is our own rule and by unit_constants.
_CONSTANTS = {(True, False): "bias", (False, False): "formula", (False, True): "divided by 1"}

OWN = Convention(1e-5, 1e-5, 0.9, False, "biased", "last")
CONVENTIONS = {
    "wolfram": Convention(1e-3, 1e-3, 0.9, False, "biased", "example"),
    # UnitNormalization takes 1e-12 for the least square of a norm.
    "keras": Convention(1e-3, 1e-6, 0.99, False, "biased", "last", norm_epsilon=1e-6),
    "matlab": Convention(1e-5, 1e-5, 0.1, True, "biased", "features"),
    # torch.nn.functional.normalize: 1e-12.
    "torch": Convention(1e-5, None, 0.1, True, "unbiased", "last", norm_epsilon=1e-12),
    "onnx": Convention(1e-5, 1e-5, 0.9, False, "biased", "last"),
    # Without moving statistics of its own; those asked for are normcli's.
    "sklearn": Convention(0.0, 0.0, 0.9, False, "biased", "last", unit_constants=True),
}


def convention(name: str | None) -> Convention:
    """Return the convention called `name`, or normcli's own for None.

    Raises
    ------
    UsageError
        When no convention has that name.
    """
    if name is None:
        return OWN
    if name not in CONVENTIONS:
        raise UsageError(
            f"There is no convention {name!r}.", f"Conventions: {', '.join(CONVENTIONS)}."
        )
    return CONVENTIONS[name]


def has_unit_constants(name: str | None) -> bool:
    """Whether the convention called `name` divides groups like constant ones by 1."""
    return name in CONVENTIONS and CONVENTIONS[name].unit_constants
