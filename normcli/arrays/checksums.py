"""CRC-32C (Castagnoli), the checksum of everything that is written."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np

_TAIL = 4


def crc32c(data: Any, start: int = 0) -> int:
    """Return the CRC-32C of a buffer, continued from that of what precedes it.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    >>> crc32c(b"56789", crc32c(b"1234")) == crc32c(b"123456789")
    True
    """
    # The library takes no writable memoryview; numpy makes no copy of it.
    return google_crc32c.extend(start, np.frombuffer(data, np.uint8))


def part_checksum(data: Any) -> int:
    """Return the CRC-32C of a stored part, without the CRC-32C that it may end with.

    A message with its own CRC at the end has the same CRC as every other, so that chunks in each
    other's places would not be told apart.

    >>> part_checksum(b"123456789" + 0xE3069283.to_bytes(4, "little")) == crc32c(b"123456789")
    True
    >>> part_checksum(b"1234567890") == crc32c(b"1234567890")
    True
    """
    flat = np.frombuffer(data, np.uint8)
    body, tail = flat[:-_TAIL], flat[-_TAIL:].tobytes()
    checksum = crc32c(body)
    if len(flat) > _TAIL and tail == checksum.to_bytes(_TAIL, "little"):
        return checksum
    return crc32c(tail, checksum)


class PartChecksum:
    """`part_checksum` of what is read piece by piece."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._checksum = 0
        self._tail = b""

    def add(self, data: Any) -> None:
        """Take the next piece."""
        flat = np.frombuffer(data, np.uint8)
        self.nbytes += len(flat)
        if len(flat) <= _TAIL:
            self._tail += flat.tobytes()
        else:
            self._checksum = crc32c(self._tail, self._checksum)
            self._checksum = crc32c(flat[:-_TAIL], self._checksum)
            self._tail = flat[-_TAIL:].tobytes()
        surplus = len(self._tail) - _TAIL
        if surplus > 0:
            self._checksum = crc32c(self._tail[:surplus], self._checksum)
            self._tail = self._tail[surplus:]

    @property
    def whole(self) -> int:
        """The CRC-32C of everything added, whatever it ends with."""
        return crc32c(self._tail, self._checksum)

    @property
    def value(self) -> int:
        """The checksum of everything added."""
        if self.nbytes > _TAIL and self._tail == self._checksum.to_bytes(_TAIL, "little"):
            return self._checksum
        return self.whole
