"""Runs normcli with faults in its file operations, by a small library built from C on the spot."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cli.terminal import NORMCLI, environment

SOURCE = Path(__file__).with_name("shim.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True)
class Faulty:
    """What a run under faults came to."""

    code: int
    err: str
    hits: tuple[str, ...]


@dataclass(frozen=True)
class Shim:
    """The library, built."""

    library: Path

    @classmethod
    def build(cls, folder: Path) -> Shim:
        library = folder / "shim.so"
        assert COMPILER is not None
        command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        return cls(library)

    def run(self, *arguments: object, cwd: Path, timeout: float = 120, **faults: object) -> Faulty:
        """Run normcli; ``at=3, ops="rename", errno=28`` sets FI_AT, FI_OPS and FI_ERRNO."""
        log = cwd / ".faults"
        log.unlink(missing_ok=True)
        env = {f"FI_{name.upper()}": str(value) for name, value in faults.items()}
        done = subprocess.run(
            [NORMCLI, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=cwd,
            env=environment(LD_PRELOAD=str(self.library), FI_LOG=str(log), **env),
            timeout=timeout,
        )
        hits = tuple(log.read_text().splitlines()) if log.exists() else ()
        log.unlink(missing_ok=True)
        return Faulty(done.returncode, done.stderr.decode(errors="replace"), hits)

    def popen(self, *arguments: object, cwd: Path, **faults: object) -> subprocess.Popen[bytes]:
        """Start normcli under faults."""
        env = {f"FI_{name.upper()}": str(value) for name, value in faults.items()}
        return subprocess.Popen(
            [NORMCLI, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment(LD_PRELOAD=str(self.library), **env),
        )


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative name, with its bytes."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found
