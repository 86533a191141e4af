"""What a file holds beside the elements of its arrays: headers, indexes, attributes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from normcli.arrays.access import StoredPart
from normcli.arrays.checksums import PartChecksum
from normcli.arrays.part_keys import span_key

_PIECE = 1 << 20


def between(path: Path, spans: Iterable[tuple[int, int]]) -> tuple[StoredPart, ...]:
    """Return what a file holds outside of some spans of (offset, bytes), as parts.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    return tuple(_read_span(path, a, b) for a, b in gaps(spans, path.stat().st_size))


def gaps(spans: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the stretches of a file that no span of (offset, bytes) covers.

    >>> gaps([(10, 5), (0, 4), (15, 1)], 20)
    [(4, 10), (16, 20)]
    """
    left = []
    position = 0
    for offset, nbytes in sorted(spans):
        if offset > position:
            left.append((position, offset))
        position = max(position, offset + nbytes)
    if size > position:
        left.append((position, size))
    return left


def _read_span(path: Path, start: int, stop: int) -> StoredPart:
    checksum = PartChecksum()
    with open(path, "rb") as file:
        file.seek(start)
        while checksum.nbytes < stop - start:
            piece = file.read(min(_PIECE, stop - start - checksum.nbytes))
            if not piece:
                raise OSError(f"{path} ends before byte {stop}")
            checksum.add(piece)
    return StoredPart(span_key(start, stop), stop - start, checksum.value)
