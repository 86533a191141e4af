"""Runs of pytest forked from a process that has imported all but normcli and its tests.

To start pytest and its libraries takes two seconds, and the few tests of one guard mostly less.
"""

from __future__ import annotations

import json
import os
import sys

_IMPORTS = """
pytest _pytest.doctest pytest_timeout hypothesis hypothesis.strategies numpy numpy.testing h5py zarr
zarr.codecs numcodecs click rich.console rich.progress dask.threaded filelock psutil google_crc32c
isal.isal_zlib
"""
# No exit code of pytest.
BROKEN = 99


def main() -> None:
    """Fork a run for each line of standard input: where, with which arguments, and telling whom."""
    for name in _IMPORTS.split():
        __import__(name)
    import pytest

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(told, 1)
            os.dup2(told, 2)
            os.chdir(order["cwd"])
            sys.path.insert(0, order["cwd"])
            code = BROKEN
            try:
                code = int(pytest.main(order["arguments"]))
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
