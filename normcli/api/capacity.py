"""Who works, and with how much memory: threads here, or a cluster."""

from __future__ import annotations

from normcli.api.options import RunOptions
from normcli.engine.cluster import ClusterScheduler
from normcli.engine.events import Observer
from normcli.engine.resources import default_memory, parse_memory
from normcli.engine.schedulers import Scheduler, ThreadScheduler
from normcli.errors import UsageError
from normcli.kernels.select import choose
from normcli.planning.memory import MIB
from normcli.planning.planner import Resources


def make_scheduler(run: RunOptions) -> Scheduler:
    """Return the scheduler that the options name: threads here, or a cluster."""
    if run.scheduler and run.scheduler_file:
        raise UsageError("--scheduler and --scheduler-file exclude each other.")
    if run.workers is not None and run.workers < 1:
        raise UsageError(f"-j {run.workers}: at least one worker is needed.")
    if run.scheduler or run.scheduler_file:
        return ClusterScheduler(run.scheduler, run.scheduler_file, run.workers, run.insecure)
    if run.insecure:
        raise UsageError("--insecure is for a --scheduler or a --scheduler-file.")
    return ThreadScheduler(run.workers)


def kernel_for(nbytes: int, scheduler: Scheduler) -> str:
    """Return the kernels for an array of so many bytes, where there is memory for them."""
    return choose(nbytes) if scheduler.compiled else "numpy"


def resources(run: RunOptions, scheduler: Scheduler, observer: Observer) -> Resources:
    """Return workers and memory for the planner; on a cluster, those of its smallest worker."""
    room = scheduler.memory
    if run.memory is None:
        memory = default_memory() if room is None else room
    elif isinstance(run.memory, str):
        memory = parse_memory(run.memory)
    else:
        memory = int(run.memory)
    if memory <= 0:
        raise UsageError(f"--memory {run.memory} must be above 0.")
    if room is not None and room < memory:
        observer.note(
            f"the smallest worker has {room / MIB:.0f} MiB for blocks, below the --memory given"
        )
        memory = room
    return Resources(scheduler.workers, memory)
