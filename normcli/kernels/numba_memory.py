"""A block's memory in the types that compiled loops take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normcli.domain.dtypes import is_bfloat16


@dataclass(frozen=True)
class Memory:
    """A flat block; 16-bit floats as their bits.

    Attributes
    ----------
    flat : ndarray
        The elements, read-only: numba takes what may be written to for another type, and would
        compile everything twice.
    half : int or None
        Bits of the mantissa of 16-bit floats, which `flat` holds as uint16.
    """

    flat: np.ndarray
    half: int | None

    @classmethod
    def of(cls, flat: np.ndarray) -> Memory:
        """Return the memory of a flat array of any real type."""
        half = None
        view = flat.view()
        if flat.dtype.kind == "b":
            view = flat.view(np.uint8)
        elif is_bfloat16(flat.dtype) or flat.dtype == np.float16:
            view = flat.view(np.uint16)
            half = 7 if is_bfloat16(flat.dtype) else 10
        view.flags.writeable = False
        return cls(view, half)

    @property
    def integers(self) -> bool:
        """Whether the elements are integers, and no bits of floats."""
        return self.flat.dtype.kind in "iu" and self.half is None

    @property
    def wide(self) -> np.dtype:
        """The type that the loops see: a float that holds every element (up to 2**53) exactly.

        Two types instead of twelve: each takes 4 s to compile.
        """
        if self.flat.dtype.kind == "f":
            return self.flat.dtype
        return np.dtype(np.float32 if self.flat.dtype.itemsize <= 2 else np.float64)

    def scratch(self, size: int) -> np.ndarray | None:
        """Return room to widen `size` elements, or None where they need not be widened."""
        return None if self.flat.dtype.kind == "f" else np.empty(size, self.wide)
