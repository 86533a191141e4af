"""One line about whether statistics fit an array."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One aspect that was compared.

    Attributes
    ----------
    about : str
        The aspect: axes, channels, dtype, units, range and so on.
    verdict : {"fits", "note", "misfit"}
        Whether it speaks against the statistics; a note may, and does not change the outcome.
    text : str
        One line with names and sizes.
    """

    about: str
    verdict: str
    text: str


def finding(about: str, text: str) -> Finding:
    """Return that an aspect fits."""
    return Finding(about, "fits", text)


def note(about: str, text: str) -> Finding:
    """Return something worth a look."""
    return Finding(about, "note", text)


def misfit(about: str, text: str) -> Finding:
    """Return why statistics do not fit."""
    return Finding(about, "misfit", text)
