"""Names of HDF5 objects as text, also where they are no UTF-8.

HDF5 keeps names as bytes. h5py gives those that are no UTF-8 as bytes, and takes bytes for them; as
text they have surrogates for such bytes, as Python does it with the names of files.
"""

from __future__ import annotations

import os


def text_of(name: str | bytes) -> str:
    """Return a name that h5py told."""
    return os.fsdecode(name)


def key_of(text: str) -> str | bytes:
    """Return what h5py takes for a name."""
    return text if text.isascii() or not _has_surrogates(text) else os.fsencode(text)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
