"""Where a scheduler is: who else could use it, and whether it is one at all."""

from __future__ import annotations

import ipaddress
import socket
import struct
from urllib.parse import urlsplit

from normcli.errors import SafetyError, TransientError

# How long a scheduler may take to accept a connection, and then to say who it is.
_PATIENCE = 10.0
# The first message of a scheduler is some hundred bytes long.
_LONGEST_GREETING = 1 << 20
# Protocols of dask that only the right certificate gets through, or that stay in one process.
_CLOSED = ("tls", "wss", "inproc")


def refuse_exposed(address: str) -> None:
    """Refuse a scheduler that others on the network could use to run code as the user.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.7:8786``; without a protocol it is TCP.

    Raises
    ------
    SafetyError
        When it is neither encrypted nor on the loopback address.
    """
    if is_exposed(address):
        raise SafetyError(
            f"The dask scheduler at {address} is not encrypted: whoever reaches it can run code as "
            "you.",
            "Use TLS (docs/clusters.md tells how), or --insecure where you trust the network.",
        )


def is_exposed(address: str) -> bool:
    """Whether an address is neither encrypted nor on the loopback address."""
    protocol, host, _ = _parted(address)
    if protocol in _CLOSED or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # A name: who is behind it may change.


def require_scheduler(address: str) -> None:
    """Refuse what does not greet as a dask scheduler does, before dask talks to it.

    dask takes the first bytes of any answer for a length, asks for that much memory again and
    again, and gave up after 74 s. A scheduler speaks first: the length of its greeting, in 8 bytes.

    Parameters
    ----------
    address : str
        Where it is; only TCP is tried.

    Raises
    ------
    TransientError
        When nothing answers, or something else.
    """
    protocol, host, port = _parted(address)
    if protocol != "tcp" or not host or port is None:
        return
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
            start = b""
            while len(start) < 8 and (more := connection.recv(8 - len(start))):
                start += more
    except TimeoutError as error:
        raise _no_scheduler(address, f"it says nothing for {_PATIENCE:g} s") from error
    except OSError as error:
        raise _no_scheduler(address, error.strerror or str(error)) from error
    if len(start) < 8 or struct.unpack("<Q", start)[0] > _LONGEST_GREETING:
        raise _no_scheduler(address, "what answers is none")


def _no_scheduler(address: str, reason: str) -> TransientError:
    return TransientError(
        f"No dask scheduler answers at {address}: {reason}.",
        "Start one with `dask scheduler`, and workers with `dask worker`.",
    )


def _parted(address: str) -> tuple[str, str, int | None]:
    """Return protocol, host and port, as far as an address has them."""
    text = address if "://" in address else f"tcp://{address}"
    try:
        parts = urlsplit(text)
        return parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        return "", "", None
