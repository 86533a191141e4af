"""What a child process does with an HDF5 bundle, before this process does the same."""

from __future__ import annotations

import os

from normcli.bundles.formats import read_bundle

# The elements are read too, unless they are many.
_MOST_READ = 64 << 20


def try_bundle(path: str) -> None:
    """Read a bundle that HDF5 is asked for; of a large one, only what it says of itself."""
    small = os.path.getsize(path) <= _MOST_READ
    read_bundle(path, lambda names: names if small else ())
