"""Names of stored parts: the same in every run, and telling where the part is.

``0,0:64,128`` is a block of the only array of its file, ``group/x@0,0:64,128`` one of several, and
``bytes 0-128`` what a file holds beside its elements.
"""

from __future__ import annotations

import re

from normcli.domain.grid import Block

_BLOCK = re.compile(r"(?:(.*)@)?([0-9]*(?:,[0-9]+)*):([0-9]*(?:,[0-9]+)*)", re.DOTALL)
_SPAN = re.compile(r"bytes ([0-9]+)-([0-9]+)")
_DIGITS = 19


def block_key(inner: str, start: tuple[int, ...], stop: tuple[int, ...]) -> str:
    """Return the name of a block of an array.

    >>> block_key("", (0, 0), (64, 128)), block_key("a/x", (8,), (12,)), block_key("", (), ())
    ('0,0:64,128', 'a/x@8:12', ':')
    """
    place = f"{','.join(map(str, start))}:{','.join(map(str, stop))}"
    return f"{inner}@{place}" if inner else place


def parse_block_key(key: str) -> tuple[str, Block] | None:
    """Return the array and the block that a key names, or None where it names none.

    >>> parse_block_key("a/x@8:12")
    ('a/x', Block(number=0, start=(8,), stop=(12,)))
    >>> parse_block_key("c/0/0")
    """
    match = _BLOCK.fullmatch(key)
    if match is None or len(key) > 65536:
        return None
    start, stop = (_numbers(match.group(n)) for n in (2, 3))
    if start is None or stop is None or len(start) != len(stop):
        return None
    return match.group(1) or "", Block(0, start, stop)


def span_key(start: int, stop: int) -> str:
    """Return the name of bytes of a file that belong to no block.

    >>> span_key(0, 128)
    'bytes 0-128'
    """
    return f"bytes {start}-{stop}"


def parse_span_key(key: str) -> tuple[int, int] | None:
    """Return the bytes that a key names, or None where it names none."""
    match = _SPAN.fullmatch(key)
    if match is None or max(map(len, match.groups())) > _DIGITS:
        return None
    start, stop = map(int, match.groups())
    return (start, stop) if start <= stop else None


def _numbers(text: str) -> tuple[int, ...] | None:
    parts = text.split(",") if text else []
    if any(not 0 < len(part) <= _DIGITS for part in parts):
        return None
    return tuple(map(int, parts))
