"""The one value that every sidecar and parameter file becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bundle:
    """Named arrays in memory, with attributes that JSON can hold.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        The arrays by name; a file with one nameless array holds it under the empty name.
    attrs : mapping
        Attributes; empty where the file has none.
    """

    arrays: Mapping[str, np.ndarray]
    attrs: Mapping[str, Any] = field(default_factory=dict)
