"""What the fast cut leaves to the whole suite.

It tries a property with a tenth of its examples (a fifth where it names no number), a product of
cases with a third of its pairs, and a sweep in larger steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

# Set by conftest, before any test is read.
CUT = "NORMCLI_FAST_CUT"


def examples(number: int) -> int:
    """Return how many of `number` examples are tried in this run."""
    return -(-number // 10) if os.environ.get(CUT) else number


def steps(number: int) -> int:
    """Return the distance between the cases of a sweep: 1, but `number` in the fast cut."""
    return number if os.environ.get(CUT) else 1


def thirds(values: Iterable[Any]) -> list[Any]:
    """Return parameters, of which each third is in the fast cut."""
    return [
        pytest.param(value, marks=[pytest.mark.slow] if i % 3 else [])
        for i, value in enumerate(values)
    ]


def pairs(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """Return the parameters of a product, of which a third is in the fast cut.

    Each value of either side, with three or more on the other, is in it with one of them at least.
    """
    second = list(second)
    return [
        pytest.param(a, b, marks=[] if (i + j) % 3 == 0 else [pytest.mark.slow], id=f"{a}-{b}")
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]
