"""What the tests of commands and of their exact arithmetic share."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from .wide_cases import random


@pytest.fixture(autouse=True)
def _numbers_of_its_own(request: pytest.FixtureRequest) -> None:
    """Give each test random numbers that are the same whichever tests ran before it."""
    seed = zlib.crc32(request.node.name.encode())
    random.bit_generator.state = np.random.default_rng(seed).bit_generator.state
