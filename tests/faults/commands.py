"""The commands that storms run, one for each kind of storage."""

from __future__ import annotations

from pathlib import Path

SHAPE = (24, 3, 20, 16)
FORMATS = ("x.npy", "x.h5", "plain.h5", "x.zarr", "v2.zarr", "sharded.zarr")

# 4 MiB are for the tiles of a worker; what is left makes several blocks of each input.
BUDGETS = {
    "x.npy": "4116KiB",
    "plain.h5": "4116KiB",
    "x.h5": "4220KiB",
    "x.zarr": "4200KiB",
    "v2.zarr": "4200KiB",
    "sharded.zarr": "4220KiB",
}

# Every operation that changes what is stored.
CHANGES = "write,fsync,rename,unlink,rmdir,ftruncate,fallocate,mkdir,close"


def source(inputs: Path, name: str) -> str:
    """Return the name of an input."""
    return f"{inputs / name}/x" if name.endswith(".h5") else str(inputs / name)


def apply_command(inputs: Path, name: str, *more: str) -> list[str]:
    """Return an apply that writes ``y`` in the format of its input."""
    output = f"y{Path(name).suffix}"
    return ["apply", source(inputs, name), "-o", output, "--memory", BUDGETS[name], *more]


def fit_command(inputs: Path, name: str, *more: str) -> list[str]:
    """Return a fit that writes ``y.json``."""
    return ["fit", source(inputs, name), "-o", "y.json", "--memory", BUDGETS[name], *more]


def with_workers(command: list[str], workers: int) -> list[str]:
    """Return the same command with room for so many workers; blocks that were begun stay."""
    at = command.index("--memory")
    return [*command[:at], "--memory", "1GiB", "-j", str(workers), *command[at + 2 :]]
