"""Schedulers that others could use, and servers that are none."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from normcli.engine import cluster_address
from normcli.engine.cluster_address import is_exposed, require_scheduler
from normcli.errors import TransientError
from tests.cli.terminal import call, run

COMMANDS = {
    "fit": ["fit", "x.npy", "-o", "s.json", "--layout", "NC"],
    "apply": ["apply", "x.npy", "-o", "y.npy", "--layout", "NC"],
    "learn": ["learn", "x.npy", "x.npy", "-o", "a.json", "--layout", "NC"],
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((4, 2), np.float32))


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://127.8.9.1:8786", False),
        ("tcp://[::1]:8786", False),
        ("tcp://localhost:8786", False),
        ("localhost:8786", False),
        ("127.0.0.1:8786", False),
        ("tls://10.0.0.7:8786", False),
        ("wss://node7:8786", False),
        ("tcp://10.0.0.7:8786", True),
        ("10.0.0.7:8786", True),
        ("node7:8786", True),
        ("tcp://0.0.0.0:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
        ("ws://node7:8786", True),
        ("ucx://10.0.0.7:8786", True),
        ("tcp://127.0.0.1.example.org:8786", True),
        ("tcp://localhost.example.org:8786", True),
        ("tcp://127.0.0.1@node7:8786", True),
        ("tcp://[::1:8786", True),
    ],
)
def test_who_else_could_use_it(address: str, exposed: bool):
    assert is_exposed(address) is exposed


@pytest.mark.parametrize("name", COMMANDS)
def test_an_exposed_scheduler_is_refused_before_it_is_asked(name: str):
    Path("sched.json").write_text('{"address": "tcp://192.0.2.1:8786"}')
    for where in (["--scheduler", "tcp://192.0.2.1:8786"], ["--scheduler-file", "sched.json"]):
        begin = time.monotonic()
        ended = call(*COMMANDS[name], *where)
        assert ended.code == 4, ended.err
        assert "The dask scheduler at tcp://192.0.2.1:8786 is not encrypted" in ended.err
        assert "--insecure" in ended.err
        # Nobody answers at this address: a connection would be waited for.
        assert time.monotonic() - begin < cluster_address._PATIENCE
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_insecure_asks_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster_address, "_PATIENCE", 0.2)
    ended = call(*COMMANDS["fit"], "--scheduler", "tcp://192.0.2.1:8786", "--insecure")
    assert ended.code == 6, ended.err
    assert "No dask scheduler answers at tcp://192.0.2.1:8786" in ended.err


def test_insecure_goes_with_a_scheduler():
    ended = call(*COMMANDS["fit"], "--insecure")
    assert ended.code == 2, ended.err


@contextmanager
def server(greeting: bytes, hold: float, more: bytes = b"") -> Iterator[str]:
    """Run a server that says something to whoever comes, and hangs up after some seconds."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # who came may have left
                self.request.sendall(greeting)
                stopped.wait(hold)
                self.request.sendall(more)

    stopped = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{serving.server_address[1]}"
        finally:
            stopped.set()
            serving.shutdown()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


def test_another_kind_of_server_is_no_scheduler():
    """dask takes the first bytes of what it answers for a length, and asks for exabytes."""
    with server(HTTP, 60) as where:
        begin = time.monotonic()
        ended = run(*COMMANDS["fit"], "--scheduler", where)
        seconds = time.monotonic() - begin
    assert ended.code == 6, ended.err
    lines = ended.err.splitlines()
    assert len(lines) == 2, ended.err
    assert lines[0] == (
        f"normcli: error: No dask scheduler answers at {where}: what answers is none."
    )
    assert seconds < 30


@pytest.mark.parametrize(
    ("greeting", "hold", "told"),
    [
        (HTTP, 60, "what answers is none"),
        (b"220 mail\r\n", 60, "what answers is none"),
        (b"", 0, "what answers is none"),
        (b"\x10\x00", 0, "what answers is none"),
        (b"", 60, "says nothing for"),
        (b"\x10\x00", 60, "says nothing for"),
    ],
)
def test_what_greets_otherwise_is_no_scheduler(monkeypatch, greeting, hold, told):
    monkeypatch.setattr(cluster_address, "_PATIENCE", 1.0)
    with server(greeting, hold) as where, pytest.raises(TransientError, match=told):
        require_scheduler(where)


def test_a_greeting_may_come_in_pieces():
    with server(b"\xfd\x00\x00", 0.2, b"\x00\x00\x00\x00\x00and more") as where:
        require_scheduler(where)


def test_what_greets_as_a_scheduler_does_passes():
    with server(b"\xfd\x00\x00\x00\x00\x00\x00\x00and more", 60) as where:
        require_scheduler(where)
    with pytest.raises(TransientError, match="Connection refused"):
        require_scheduler(where)
