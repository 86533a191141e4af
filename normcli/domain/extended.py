"""float64 numbers whose exponents have no end: what moving statistics of any magnitude go through.

Each operation rounds once, to 53 bits. That is what float64 does as long as nothing leaves its
range, because a factor of a power of two changes no rounding. So the results of such steps have the
bits of float64 wherever it holds all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Below the power of every number; 0 has none.
_NEVER = -(1 << 60)
# A shift by this makes any number 0.
_FAR = 5000


@dataclass(frozen=True)
class Extended:
    """Numbers ``part * 2**power``.

    Attributes
    ----------
    part : ndarray of float64
        From 1/2 to 1 in magnitude, or 0, NaN or infinite.
    power : ndarray of int64
        0 where the part is none of the first.
    """

    part: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, power: np.ndarray | int = 0) -> Extended:
        """Return ``values * 2**power``."""
        part, own = np.frexp(values)
        some = (part != 0) & np.isfinite(part)
        return cls(np.asarray(part), np.where(some, own + np.asarray(power, np.int64), 0))

    @classmethod
    def where(cls, chosen: np.ndarray | bool, one: Extended, other: Extended) -> Extended:
        """Return the first where `chosen`, else the second."""
        return cls(np.where(chosen, one.part, other.part), np.where(chosen, one.power, other.power))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of both arrays."""
        return self.part.shape

    def __getitem__(self, index: int) -> Extended:
        """Return the numbers at one place of the first axis."""
        return Extended(self.part[index], self.power[index])

    def along(self, axis: int) -> Extended:
        """Return a view with an axis as the first one."""
        return Extended(np.moveaxis(self.part, axis, 0), np.moveaxis(self.power, axis, 0))

    def times(self, other: Extended) -> Extended:
        """Return products."""
        return Extended.of(self.part * other.part, self.power + other.power)

    def plus(self, other: Extended) -> Extended:
        """Return sums."""
        own, more = self.known_power(), other.known_power()
        top = np.maximum(own, more)
        # What is shifted out is far below half a unit in the last place of the other one.
        with np.errstate(under="ignore", invalid="ignore"):
            total = np.ldexp(self.part, np.maximum(own - top, -_FAR)) + np.ldexp(
                other.part, np.maximum(more - top, -_FAR)
            )
        return Extended.of(total, np.where(top == _NEVER, 0, top))

    def negative(self) -> Extended:
        """Return the numbers with the other sign."""
        return Extended(-self.part, self.power)

    def divided(self, divisor: np.ndarray) -> Extended:
        """Return quotients by numbers of 1 or more."""
        return Extended.of(self.part / divisor, self.power)

    def over(self, power: np.ndarray | int) -> np.ndarray:
        """Return the numbers divided by ``2**power`` in float64, which may not hold them."""
        with np.errstate(over="ignore", under="ignore"):
            turn = np.clip(self.power - power, -_FAR, _FAR)
            return np.asarray(np.ldexp(self.part, turn))

    def known_power(self) -> np.ndarray:
        """Return the powers, of 0 one below that of every number."""
        return np.where(self.part == 0, _NEVER, self.power)
