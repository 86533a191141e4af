"""Processes that test at once compile each kernel once: one does, the others wait for it."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


def share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever compiles a kernel lock it in `folder`, which is shared by the processes.

    By itself numba looks into its cache before it compiles, and not while another process does: the
    loops of a fused walk, of 4 s each, were compiled by all three processes.
    """
    if "numba" not in sys.modules:
        return
    from numba.core.caching import NullCache
    from numba.core.dispatcher import Dispatcher

    compiled = Dispatcher.compile
    inside = threading.local()

    def compile_alone(self: Any, signature: Any) -> Any:
        # What is compiled on the way, within numba's own lock of threads, waits for nobody.
        if getattr(inside, "one", False) or isinstance(self._cache, NullCache):
            return compiled(self, signature)
        key = f"{self.py_func.__module__}.{self.py_func.__qualname__} {signature}"
        inside.one = True
        try:
            with FileLock(folder / f"{hashlib.sha256(key.encode()).hexdigest()}.lock"):
                return compiled(self, signature)
        finally:
            inside.one = False

    monkeypatch.setattr(Dispatcher, "compile", compile_alone)
