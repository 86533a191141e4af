"""How loops are compiled: without the GIL, with a cache on disk where there is one.

The sets of floating-point freedoms are all that the kernels use. None lets the compiler assume
that there is no NaN and no infinity. Freedoms belong to single instructions and stay with them when
functions are inlined, so error-free steps in functions of their own are safe inside of loops whose
sums may be reordered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# Error-free steps: as they are written.
EXACT: frozenset[str] = frozenset()
# Lanes are independent: only multiply and add may be fused.
LANES = frozenset({"contract"})
# Sums along a row are spread over vector registers.
SUMS = frozenset({"reassoc", "contract", "nsz", "arcp"})


def _stamp() -> str:
    """Return a name for the present state of all compiled sources."""
    try:
        sources = sorted(Path(__file__).parent.glob("numba_*.py"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    except OSError:
        return ""


_STAMP = _stamp()


def jit(
    freedoms: frozenset[str] = LANES, inline: bool = False, entry: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function when it is first called, and keep the result on disk if possible.

    Parameters
    ----------
    freedoms : frozenset of str
        What the compiler may do to floating-point arithmetic.
    inline : bool
        For small functions that take arrays: a call counts references to each of them.
    entry : bool
        Whether Python calls the function. Others, which compiled code calls, have no way in from
        Python: taking a tuple of arrays apart is much code, and a quarter of compiling it all.
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        # numba renews its cache when the file of a function changes, but not when that of a
        # function inlined from another file does. The name is part of the cache's file name.
        function.__qualname__ = f"{function.__name__}_{_STAMP}"
        options: dict[str, Any] = {
            "nogil": True,
            "fastmath": set(freedoms),
            "error_model": "numpy",
            # The caller holds every array and nothing is made here. A call counted references to
            # each array of its arguments, one atomic operation after the other: 0.2 us for a group.
            "_nrt": False,
            "no_cpython_wrapper": not entry,
            "no_cfunc_wrapper": True,
        }
        if inline:
            options["forceinline"] = True
        try:
            return numba.njit(cache=True, **options)(function)
        except (RuntimeError, OSError):
            # No directory to write to: not NUMBA_CACHE_DIR, not __pycache__, not the home.
            return numba.njit(**options)(function)

    return compiled
