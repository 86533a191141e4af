"""Scale and bias: the supplied or learned half of a normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normcli.errors import InputError


@dataclass(frozen=True)
class Affine:
    """Scale and bias along the scale axes; an absent one is None, which is not the same as ones.

    Attributes
    ----------
    scale, bias : ndarray of float64 or None
        Each with the extents of the scale axes in ascending order.
    groups : int or None
        Where a file says that its parameters have one value for each of so many groups of
        channels (ONNX GroupNormalization before opset 21); None for all others.
    """

    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    groups: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return sum(part.nbytes for part in (self.scale, self.bias) if part is not None)

    def of_channels(self, groups: int | None, channels: int) -> Affine:
        """Return the affine with a value for each channel, where it has one for each group.

        Parameters
        ----------
        groups : int or None
            Groups that the channels, along the only scale axis, are divided into.
        channels : int
            Extent of that axis.

        Raises
        ------
        InputError
            When there are other groups, or another number of values.
        """
        if self.groups is None:
            return self
        if groups != self.groups:
            raise InputError(
                f"The scale and bias have one value for each of {self.groups} groups of channels, "
                "as ONNX stores them before opset 21.",
                f"They go with --mode group --groups {self.groups}.",
            )
        spread: dict[str, np.ndarray | None] = {"scale": None, "bias": None}
        for name, values in (("scale", self.scale), ("bias", self.bias)):
            if values is None:
                continue
            if values.size != groups:
                raise InputError(
                    f"The {name} has {values.size} values for {groups} groups of channels."
                )
            spread[name] = np.repeat(values.reshape(-1), channels // groups)
        return Affine(spread["scale"], spread["bias"])

    def fitted(self, shape: tuple[int, ...], axes: str) -> Affine:
        """Return the affine with both parts in exactly the shape of the scale axes.

        Axes of length 1 do not matter, as in MATLAB (C x 1, 1 x 1 x C); nothing is broadcast.

        Parameters
        ----------
        shape : tuple of int
            Extents of the scale axes.
        axes : str
            The axes in words, for the message.

        Raises
        ------
        InputError
            When a part has other extents, or holds a value that is not finite.
        """
        return Affine(
            _fitted(self.scale, "scale", shape, axes), _fitted(self.bias, "bias", shape, axes)
        )

    def after(self, offset: float, shape: tuple[int, ...]) -> Affine:
        """Return the affine that also adds `offset` first: ``scale * (z + offset) + bias``.

        Parameters
        ----------
        offset : float
            The same for all elements.
        shape : tuple of int
            Extents of the scale axes.
        """
        if offset == 0:
            return self
        added = np.full(shape, offset) if self.scale is None else self.scale * offset
        return Affine(self.scale, added if self.bias is None else added + self.bias)


def _fitted(
    values: np.ndarray | None, name: str, shape: tuple[int, ...], axes: str
) -> np.ndarray | None:
    if values is None:
        return None
    extents = tuple(n for n in values.shape if n != 1)
    if extents != tuple(n for n in shape if n != 1):
        raise InputError(
            f"The {name} has shape {values.shape}, but the scale axes {axes} have {shape}.",
            "Nothing is broadcast: give one value for each element of the scale axes, or "
            "other --scale-axes.",
        )
    if not np.all(np.isfinite(values)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise InputError(f"The {name} holds {bad} values that are not finite.")
    # Not ascontiguousarray, which gives a scalar an axis.
    return np.asarray(values.reshape(shape), dtype=np.float64, order="C")
