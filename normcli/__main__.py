"""``python -m normcli`` is the command line."""

import sys

# The interpreter puts the current folder first here, where a ``zarr.py`` would be taken for zarr.
if sys.path and not sys.flags.safe_path:
    del sys.path[0]

from normcli.cli.main import entry

if __name__ == "__main__":
    entry()
