"""The command line as its users meet it: as a process, on a terminal, or (fast) in this process."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

NORMCLI = str(Path(sys.executable).with_name("normcli"))
SAMPLES = Path(__file__).parents[2] / "sample_data"


@dataclass(frozen=True)
class Ended:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def environment(**changes: str) -> dict[str, str]:
    """Return the environment without what changes the screen."""
    odd = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "TTY_COMPATIBLE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NORMCLI_") and k not in odd}
    return {**kept, "TERM": "xterm-256color", **changes}


def run(*arguments: object, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Ended:
    """Run normcli as a process."""
    done = subprocess.run(
        [NORMCLI, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(**env),
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def shell(script: str, cwd: Path, **env: str) -> Ended:
    """Run a bash script, in which ``$N`` is normcli; its code is that of the whole pipe."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{script}"],
        capture_output=True,
        cwd=cwd,
        env=environment(N=NORMCLI, **env),
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def call(*arguments: object, **env: str) -> Ended:
    """Run normcli in this process: what a process does, without its half second of imports."""
    from normcli.cli.main import entry

    out, err = io.BytesIO(), io.BytesIO()
    with (
        mock.patch.object(sys, "argv", ["normcli", *map(str, arguments)]),
        mock.patch.object(sys, "stdout", io.TextIOWrapper(out, write_through=True)),
        mock.patch.object(sys, "stderr", io.TextIOWrapper(err, write_through=True)),
        mock.patch.dict(os.environ, environment(**env), clear=True),
    ):
        try:
            entry()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        return Ended(code, out.getvalue(), err.getvalue().decode())


def on_terminal(
    *arguments: object, columns: int = 120, cwd: Path | None = None, **env: str
) -> tuple[int, str]:
    """Run normcli with a pseudo-terminal as its three streams; return code and all it wrote."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [NORMCLI, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment(**env),
        start_new_session=True,
    )
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(ours)
    return process.wait(60), b"".join(pieces).decode()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def drafts(folder: Path) -> list[str]:
    """Return outputs in the making, and the work folders that hold them."""
    return [
        str(p)
        for p in folder.rglob("*")
        if "normcli-draft" in p.name or p.name.endswith(".normcli-work")
    ]


def assert_told(ended: Ended, code: int, *words: str, hint: bool = True) -> None:
    """Assert one line that says what is wrong, and a hint that says what to do."""
    assert ended.code == code, ended
    errors = [line for line in ended.err.splitlines() if line.startswith("normcli: error: ")]
    assert len(errors) == 1, ended.err
    for word in words:
        assert word in ended.err, (word, ended.err)
    assert "Traceback" not in ended.err
    if hint:
        assert ended.err.splitlines()[-1].startswith("Hint: "), ended.err


def printable_only(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def zscore(values: np.ndarray, axes: Iterable[int], epsilon: float = 1e-5) -> np.ndarray:
    wide = values.astype(np.float64)
    axes = tuple(axes)
    center = wide.mean(axis=axes, keepdims=True)
    return (wide - center) / np.sqrt(wide.var(axis=axes, keepdims=True) + epsilon)
