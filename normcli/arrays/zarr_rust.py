"""The codec pipeline of the optional package zarrs, for the arrays that it can read."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from normcli.process_limits import address_space_is_limited

_forked = False


def zarrs_reader(array: zarr.Array, path: Path) -> zarr.AsyncArray[Any] | None:
    """Return the array as zarrs decodes it, where that is installed and able to.

    zarrs decodes on threads of its own, one a core for the whole process, however many blocks
    are read at once. The pipeline in ``zarr.config``, which other code of the process may rely
    on, is left alone.

    Parameters
    ----------
    array : zarr.Array
        An open array that is only read.
    path : Path
        The folder of its store.

    Returns
    -------
    AsyncArray or None
        None where zarrs is missing, does not know a codec, or would give another byte order or
        memory layout than zarr-python does.
    """
    if (
        _forked
        or address_space_is_limited()
        or array.order != "C"
        or not np.dtype(array.dtype).isnative
    ):
        return None
    try:
        from zarrs import ZarrsCodecPipeline
        from zarrs.pipeline import get_codec_pipeline_impl
    except ImportError:
        return None
    store = LocalStore(path, read_only=True)
    try:
        impl = get_codec_pipeline_impl(array.metadata, store, strict=True)
        pipeline: Any = ZarrsCodecPipeline(array.metadata, store, impl, None)
    except Exception:  # whatever it cannot take, zarr-python reads or says why not
        return None
    reader = copy.copy(array.async_array)
    # The one place where an open array keeps its pipeline; the class is frozen.
    object.__setattr__(reader, "codec_pipeline", pipeline)
    return reader


def _remember_fork() -> None:
    """Leave zarrs alone in a forked child, where its threads are missing and calls would hang."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)
