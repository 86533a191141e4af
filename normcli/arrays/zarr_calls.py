"""zarr's coroutines, run in the thread that asks for them."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from zarr.core.sync import sync

from normcli.zarr_loop import hush_zarr, no_news

T = TypeVar("T")

# Seconds for reads that are under way when another one fails.
_PATIENCE = 5.0

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Unlike epoll, it keeps nothing in the kernel that a forked child would share with its parent.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def call(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of zarr to its end and return its result.

    zarr runs all coroutines of a process on one thread, and each file access and each codec on
    yet others. Where as many blocks are worked on as there are cores, handing over is loss: two
    threads on 2 cores read uncompressed chunks of 4 MiB 1.1 to 1.4 times, and lz4 chunks 1.2
    times as fast without it. Where few calls are under way, zarr's threads share each of them.

    Parameters
    ----------
    coroutine : coroutine
        A call of an asynchronous array.

    Returns
    -------
    object
        What the coroutine returns; what it raises is raised.
    """
    with _under_way as calls:
        if 2 * calls <= _CORES or _inside_a_loop():
            hush_zarr()
            return sync(_with_the_others(coroutine))
        return _run_here(coroutine)


async def _with_the_others(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in zarr's own loop.

    The first chunk that fails ends the call. The others are waited for: where the interpreter ends
    before them, each would print a traceback.
    """
    own = asyncio.current_task()
    _calls.add(own)
    try:
        return await coroutine
    except BaseException:
        # Chunks of other calls are among them, and end too; calls wait for each other never.
        if rest := asyncio.all_tasks() - _calls:
            await asyncio.wait(rest, timeout=_PATIENCE)
        raise
    finally:
        _calls.discard(own)


class _Inline(ThreadPoolExecutor):
    """Calls functions at once, in the thread that submits them; it never starts a thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Loop:
    """An event loop of one thread of one process, closed when the thread ends."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.SelectorEventLoop(_Selector())
        self.loop.set_default_executor(_Inline(1))
        self.loop.set_exception_handler(no_news)
        weakref.finalize(self, self.loop.close)


class _Counter:
    """How many calls are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1


# Calls in zarr's loop: only its thread looks at them.
_calls: set[asyncio.Task[Any] | None] = set()
_here = threading.local()
_under_way = _Counter()


def _run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    kept: _Loop | None = getattr(_here, "loop", None)
    if kept is None or kept.pid != os.getpid():
        kept = _here.loop = _Loop()
    try:
        return kept.loop.run_until_complete(coroutine)
    except BaseException:
        # The first chunk that fails ends the call; the others would wait in the loop for ever.
        rest = asyncio.all_tasks(kept.loop)
        for task in rest:
            task.cancel()
        kept.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        raise


def _inside_a_loop() -> bool:
    """Whether this thread is busy with a loop of somebody else, as a notebook's is."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _forget_calls() -> None:
    """Begin anew in a forked child: the threads that were calling are not there."""
    global _under_way
    _under_way = _Counter()
    _calls.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls)
