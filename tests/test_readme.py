"""The tour of the README is run, and what it prints must be what the README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- tour -->\n```console\n(.*?)```", re.S)

# What differs from run to run or from machine to machine: times, speeds, workers, rounding errors.
MOVING = re.compile(r"\d+(\.\d+)? (s|[KMG]?i?B/s)\b|\d+ workers?|-?\d(\.\d+)?e-\d+")
# How far a run is, which is told the more often the slower the machine is.
PROGRESS = re.compile(r"^normcli: \w+: +\d+ %.*\n", re.M)


def blocks() -> list[str]:
    return BLOCK.findall((ROOT / "README.md").read_text())


def commands(block: str) -> list[str]:
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return f"$ {command}\n{done.stdout}"


def still(text: str) -> str:
    """Return what does not differ from run to run."""
    return MOVING.sub("#", PROGRESS.sub("", text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tour")
    shutil.copytree(ROOT / "sample_data", place / "sample_data")
    return place


def test_the_tour_prints_what_the_readme_shows(folder):
    assert len(blocks()) >= 6
    for block in blocks():
        printed = "".join(run(command, folder) for command in commands(block))
        assert still(printed) == still(block)
