"""zarr's event loop, which prints nothing of its own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from zarr.core.sync import sync

_hushed = False


def hush_zarr() -> None:
    """Have the loop in which zarr opens, reads and writes print nothing to stderr.

    Of several files or chunks the first that fails is told, by an exception. That others fail as
    well is no news, but asyncio prints a traceback for each whose exception nobody asks for.
    """
    global _hushed
    if not _hushed:
        sync(_hush())
        _hushed = True


def no_news(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing; for `asyncio.loop.set_exception_handler`."""


async def _hush() -> None:
    asyncio.get_running_loop().set_exception_handler(no_news)


def _begin_anew() -> None:
    """A forked child has no thread for the loop, and zarr makes another one."""
    global _hushed
    _hushed = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
