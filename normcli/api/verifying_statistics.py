"""Statistics files verified: readable, complete, and consistent in themselves."""

from __future__ import annotations

import time
from pathlib import Path

from normcli.api.verification import Verification
from normcli.bundles.formats import read_bundle
from normcli.bundles.statistics_attributes import SCHEMA
from normcli.bundles.statistics_check import inconsistencies
from normcli.errors import NormcliError, TransientError

SIDECAR_SUFFIXES = (".json", ".npz", ".h5", ".hdf5", ".zarr", ".safetensors")


def is_statistics(output: str) -> bool:
    """Whether a file holds statistics that normcli wrote."""
    if Path(output).suffix.lower() not in SIDECAR_SUFFIXES:
        return False
    try:
        return read_bundle(output, lambda names: []).attrs.get("schema") == SCHEMA
    except TransientError:
        raise
    except NormcliError:
        return False


def verify_statistics(output: str, begin: float) -> Verification:
    """Verify a sidecar: readable, complete, and consistent in itself."""
    damage: list[str] = []
    parts = nbytes = 0
    try:
        bundle = read_bundle(output)
        parts = len(bundle.arrays)
        nbytes = sum(values.nbytes for values in bundle.arrays.values())
        damage += (f"{output}: {what}" for what in inconsistencies(bundle, output))
    except TransientError:
        raise  # Storage fails; that says nothing of what it holds.
    except NormcliError as error:
        damage.append(error.message)
    seconds = time.perf_counter() - begin
    return Verification(output, "statistics", None, parts, nbytes, tuple(damage), (), (), seconds)
