"""float16 without arithmetic: by the processor where it can, by integers everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest

from normcli.kernels import numba_widen

ROOT = Path(__file__).parents[2]
EVERY_HALF = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize(
    "way",
    [
        numba_widen.widen_by_integers,
        pytest.param(
            numba_widen.widen_by_processor,
            marks=pytest.mark.skipif(not numba_widen.F16C, reason="this processor has no F16C"),
        ),
    ],
    ids=["integers", "processor"],
)
def test_every_float16_becomes_the_float32_of_the_same_value(way):
    wide = np.empty(EVERY_HALF.size, np.float32)
    # Only compiled code calls it.
    numba.njit(lambda halves, wide: way(halves, wide))(EVERY_HALF, wide)
    want = EVERY_HALF.view(np.float16).astype(np.float32)
    nan = np.isnan(want)
    assert np.isnan(wide[nan]).all()
    # By bits, so that -0.0 is not 0.0.
    np.testing.assert_array_equal(wide[~nan].view(np.uint32), want[~nan].view(np.uint32))


WIDEN = textwrap.dedent("""
    import numba
    import numpy as np
    from normcli.kernels import numba_widen
    halves = np.arange(1 << 16, dtype=np.uint16)
    wide = np.empty(halves.size, np.float32)
    numba.njit(lambda halves, wide: numba_widen.widen(halves, 10, wide))(halves, wide)
    assert np.array_equal(wide, halves.view(np.float16).astype(np.float32), equal_nan=True)
    hits = sum(numba_widen.widen.stats.cache_hits.values())
    print(numba_widen.F16C, "kept" if hits else "compiled")
""")


@pytest.mark.skipif(not numba_widen.F16C, reason="this processor has no F16C")
def test_processors_that_share_a_cache_do_not_share_its_code(tmp_path):
    # On a processor without F16C the code of one with it ends in an illegal instruction.
    plain = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    found = []
    for target in ({}, plain, {}, plain):
        done = subprocess.run(
            [sys.executable, "-c", WIDEN],
            cwd=ROOT,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **target},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [
        ["True", "compiled"],
        ["False", "compiled"],
        ["True", "kept"],
        ["False", "kept"],
    ]
