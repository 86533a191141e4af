"""What verifying an output found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from normcli.domain.moments import Moments

NAMED = 20


@dataclass(frozen=True)
class VerifiedArray:
    """One array that was read as a whole.

    Attributes
    ----------
    name : str
        Its name.
    shape : tuple of int
        Its extents.
    dtype : str
        Its element type.
    moments : Moments
        Of all its elements, as one group.
    promised : bool
        Whether the manifest tells these moments, so that they were compared.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    moments: Moments
    promised: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        values = {f.name: getattr(self.moments, f.name).item() for f in fields(Moments)}
        counted = bool(values["count"])
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "compared": self.promised,
            "count": values["count"],
            "nonfinite": values["nonfinite"],
            "mean": values["mean"] if counted else None,
            "std": float(self.moments.variance()) ** 0.5 if counted else None,
            "minimum": values["minimum"] if counted else None,
            "maximum": values["maximum"] if counted else None,
        }


@dataclass(frozen=True)
class Verification:
    """The outcome of one verification.

    Attributes
    ----------
    output : str
        What was verified.
    against : {"manifest", "checksums", "statistics"}
        What it was compared with: its manifest, its own checksums, or, of a sidecar, itself.
    manifest : str or None
        Name of the manifest.
    parts : int
        Stored parts compared.
    nbytes : int
        Bytes of them.
    damage : tuple of str
        What is wrong, one line each.
    unprotected : tuple of str
        Arrays whose storage has no checksum, so that changes in it do not show.
    arrays : tuple of VerifiedArray
        What was read as a whole; empty where damage was found before.
    seconds : float
        Wall time.
    """

    output: str
    against: str
    manifest: str | None
    parts: int
    nbytes: int
    damage: tuple[str, ...]
    unprotected: tuple[str, ...]
    arrays: tuple[VerifiedArray, ...]
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage

    def as_dict(self) -> Mapping[str, Any]:
        """Return it as values that JSON can hold; only the first damages are named."""
        return {
            "output": self.output,
            "sound": self.sound,
            "against": self.against,
            "manifest": self.manifest,
            "parts": self.parts,
            "bytes": self.nbytes,
            "damaged": len(self.damage),
            "damage": list(self.damage[:NAMED]),
            "unprotected": list(self.unprotected),
            "arrays": [array.as_dict() for array in self.arrays],
            "seconds": self.seconds,
        }
