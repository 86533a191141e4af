"""Words for people: sizes, times, shapes, and text that cannot drive a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from normcli.redaction import redacted

# Of a line: twice the longest path that systems take. A name of more than 255 letters is none, and
# a word of more than a thousand tells no person more than its ends.
_LONGEST_LINE = 8192
_LONGEST_WORD = 1024
_ENDS = 200
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


def size(nbytes: float) -> str:
    """Return bytes for people, in powers of 1024."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def counted(number: int, word: str, several: str | None = None) -> str:
    """Return a number and its noun: ``1 block``, ``2 blocks``."""
    return f"{number} {word if number == 1 else several or word + 's'}"


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people: ``(64, 3, 32, 32)``."""
    return f"({', '.join(map(str, shape))})"


def printable(text: str) -> str:
    """Return text for the screen: no control characters, no secrets of addresses, no endless names.

    Control characters become their escapes, so that names cannot drive the terminal.
    """
    text = redacted(_LONG_WORD.sub(lambda word: _shortened(word[0], _ENDS), text))
    if len(text) > _LONGEST_LINE:
        text = _shortened(text, _LONGEST_WORD)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str, ends: int) -> str:
    return f"{text[:ends]}… ({len(text)} characters) …{text[-ends:]}"
