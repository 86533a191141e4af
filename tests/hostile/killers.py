"""What libraries do to a process that reads a hostile file with them, done on purpose."""

from __future__ import annotations

import ctypes
import os
import signal
import time


def crash(path: str) -> None:
    ctypes.string_at(0)


def abort(path: str) -> None:
    os.abort()


def compute_for_ever(path: str) -> None:
    while True:
        pass


def wait_for_ever(path: str) -> None:
    time.sleep(3600)


def take_memory(path: str) -> None:
    import numpy as np

    # More than the limit, which the machine would grant: nothing of it is touched but the end.
    held = np.zeros(3 << 30, np.uint8)
    held[-1] = 1


def fail(path: str) -> None:
    raise ValueError("the real call will say so")


def do_well(path: str) -> None:
    with open(path, "a") as file:
        file.write("tried\n")


def ask_again(path: str) -> None:
    """Try another call from inside of a trial, which must not fork once more."""
    from normcli.isolation import require_survival

    require_survival(path, __name__, "do_well")
    signal.raise_signal(signal.SIGUSR1 if os.path.getsize(path) else signal.SIGABRT)


def tell_limits(path: str) -> None:
    """Write down what a trial may take."""
    import resource

    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    with open(path, "a") as file:
        file.write(" ".join(str(resource.getrlimit(kind)[0]) for kind in kinds))
