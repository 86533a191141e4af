"""How many examples a property is tried with: all in the whole suite, a tenth in the fast cut."""

from __future__ import annotations

import os

# Set by conftest, before any test is read.
CUT = "NORMCLI_FAST_CUT"


def examples(number: int) -> int:
    """Return how many of `number` examples are tried in this run."""
    return -(-number // 10) if os.environ.get(CUT) else number
