"""normcli: normalize arrays that do not fit in memory.

``fit`` measures arrays in one pass, ``merge`` joins what several fits measured, ``apply``
normalizes, ``learn`` learns scale and bias against a target, ``check`` compares statistics with an
array, and ``read_statistics`` gives back what a fit wrote; ``init``, ``extract`` and ``convert``
are about its parameters. All are imported when they are first used, so that ``normcli --help``
needs neither numpy nor zarr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from normcli.api import (
        FittedStatistics,
        apply,
        check,
        convert,
        extract,
        fit,
        init,
        learn,
        merge,
        read_statistics,
    )

__all__ = [
    "FittedStatistics",
    "__version__",
    "apply",
    "check",
    "convert",
    "extract",
    "fit",
    "init",
    "learn",
    "merge",
    "read_statistics",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("normcli.api"), name)
    raise AttributeError(f"module 'normcli' has no attribute {name!r}")
