"""What zarr's event loop does not print."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import normcli

FAILING = """
import asyncio, gc, os, sys
from zarr.core.sync import sync
from normcli.zarr_loop import hush_zarr

async def fail():
    asyncio.get_running_loop().create_future().set_exception(OSError(5, "nobody asks"))

def lose():
    if sys.argv[1] == "hushed":
        hush_zarr()
    sync(fail())
    gc.collect()

lose()
if os.fork() == 0:
    lose()
    os._exit(0)
os.wait()
"""


def told(how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FAILING, how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_failures_that_nobody_asks_for_are_not_printed():
    """Neither in the process nor in one that is forked from it."""
    assert told("plain").count("never retrieved") == 2
    assert told("hushed") == ""


def test_whoever_lets_zarr_open_or_create_hushes_it_before():
    root = Path(normcli.__file__).parent
    found = 0
    for path in sorted(root.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            opens = [
                call.lineno
                for call in calls
                if isinstance(call, ast.Attribute)
                and isinstance(call.value, ast.Name)
                and call.value.id == "zarr"
                and call.attr.startswith(("open", "create"))
            ]
            hushes = [
                call.lineno
                for call in calls
                if isinstance(call, ast.Name) and call.id == "hush_zarr"
            ]
            if opens:
                found += 1
                assert min(hushes, default=10**9) < min(opens), (path, function.name)
    assert found >= 7
