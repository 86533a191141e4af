"""What the system lets this process take, and what it has taken."""

from __future__ import annotations

import os
import threading

# What Linux gives a stack where nothing else is said.
_STACK = 8 << 20


def limit(kind: int, value: int) -> None:
    """Lower (or raise again) a soft limit of this process, within its hard one."""
    import resource

    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, hard))


def address_space() -> int:
    """Return the bytes of address space that this process takes.

    Raises
    ------
    OSError
        On systems that do not tell.
    """
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def address_space_is_limited() -> bool:
    """Whether ``ulimit -v`` is in force.

    Threads are then begun before work only. One that dies of a lack of memory before its first
    instruction makes `threading.Thread.start` wait for it for ever, and zarrs waits likewise.
    """
    return _soft_limit("RLIMIT_AS") is not None


def free_address_space() -> int | None:
    """Return the bytes of address space that are left, or None where nothing limits them."""
    most = _soft_limit("RLIMIT_AS")
    if most is None:
        return None
    try:
        return max(0, most - address_space())
    except OSError:
        return None


def thread_stack() -> int:
    """Return the bytes of address space that a new thread takes for its stack."""
    return threading.stack_size() or _soft_limit("RLIMIT_STACK") or _STACK


def _soft_limit(kind: str) -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    soft: int = resource.getrlimit(getattr(resource, kind))[0]
    return None if soft == resource.RLIM_INFINITY else soft
