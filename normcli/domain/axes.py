"""Axis expressions: the small grammar by which a user names axes.

::

    expression = "none" | "all" | "~" items | items
    items      = item {"," item}
    item       = index | start ":" stop | dimension name | layout letters

Indices count from 0 and may be negative; ranges exclude their end, as in Python; ``~`` means
all axes but those that follow; the letter S stands for every spatial axis.

Wolfram levels count from 1, include the end of ``a;;b``, and never count the batch axis.
"""

from __future__ import annotations

import re

from normcli.domain.layout import LETTERS, SPATIAL, Layout
from normcli.errors import UsageError

# Python refuses to read numbers of thousands of digits.
_INDEX = re.compile(r"-?\d{1,18}\Z")
_RANGE = re.compile(r"(-?\d{1,18})?:(-?\d{1,18})?\Z")
_GRAMMAR = "Use indices (0, -1), ranges (2:4), layout letters (HW), dimension names, all or ~C."


def parse_axes(text: str, layout: Layout) -> tuple[int, ...]:
    """Return the axes that `text` names, in ascending order.

    Raises
    ------
    UsageError
        For an axis out of range, an axis named twice, or a word that names no axis.
    """
    expression = text.strip()
    if expression == "none":
        return ()
    if expression == "all":
        return tuple(range(layout.ndim))
    if expression.startswith("~"):
        rest = expression[1:].strip()
        if rest.startswith("~"):
            raise UsageError(f"{text!r} excludes more than once.", _GRAMMAR)
        excluded = parse_axes(rest, layout)
        return tuple(axis for axis in range(layout.ndim) if axis not in excluded)
    axes: list[int] = []
    for item in expression.split(","):
        axes += _item(item.strip(), text, layout)
    return _ascending(axes, text, layout)


def parse_levels(text: str, layout: Layout) -> tuple[int, ...]:
    """Return the axes that Wolfram levels of one example name, in ascending order.

    Level ``l`` is axis ``l - 1`` of an example; the batch axis is not counted.
    """
    example = [axis for axis in range(layout.ndim) if axis != layout.batch_axis]
    rank = len(example)

    def level(word: str, default: int) -> int:
        if word in ("", "All"):
            return default
        if not _INDEX.match(word):
            raise UsageError(f"{text!r} has no level in {word!r}.", "Levels: 1, -1, 2;;All, {1,3}.")
        number = int(word)
        resolved = rank + number + 1 if number < 0 else number
        if not 1 <= resolved <= rank:
            raise UsageError(
                f"Level {number} of {text!r} is out of range: one example has {rank} levels.",
                "Levels count from 1 and leave the batch axis out.",
            )
        return resolved

    if text.strip() in ("none", "None"):
        return ()
    axes: list[int] = []
    for part in text.strip().strip("{}").split(","):
        word = part.strip()
        first, separator, last = word.partition(";;")
        low = level(first.strip(), 1)
        high = level(last.strip(), rank) if separator else (rank if word == "All" else low)
        if word == "All":
            low = 1
        if low > high:
            raise UsageError(f"The range {word!r} is empty.", "Write the smaller level first.")
        axes += [example[number - 1] for number in range(low, high + 1)]
    return _ascending(axes, text, layout)


def _item(item: str, text: str, layout: Layout) -> list[int]:
    if layout.names and item in layout.names and item:
        return [axis for axis, name in enumerate(layout.names) if name == item]
    if _INDEX.match(item):
        return [_in_range(int(item), layout)]
    matched = _RANGE.match(item)
    if matched:
        low = 0 if matched[1] is None else _in_range(int(matched[1]), layout)
        stop = layout.ndim if matched[2] is None else int(matched[2])
        stop = stop + layout.ndim if stop < 0 else stop
        if stop > layout.ndim or stop <= low:
            raise UsageError(
                f"The range {item!r} names no axes of an array with {layout.ndim} axes.",
                "Ranges count from 0 and exclude their end: 2:4 is axes 2 and 3.",
            )
        return list(range(low, stop))
    if item and all(letter in LETTERS for letter in item):
        return _letters(item, text, layout)
    names = f" The dimensions are {', '.join(layout.names)}." if layout.names else ""
    raise UsageError(f"{item!r} in {text!r} names no axis of {layout}.", _GRAMMAR + names)


def _letters(item: str, text: str, layout: Layout) -> list[int]:
    axes: list[int] = []
    for letter in dict.fromkeys(item.replace("B", "N")) if item.strip("S") == "" else item:
        wanted = SPATIAL if letter == "S" else {letter.replace("B", "N")}
        found = [axis for axis, own in enumerate(layout.letters) if own in wanted]
        if not found:
            raise UsageError(
                f"{text!r} names the axis {letter}, but the layout is {layout}.", _GRAMMAR
            )
        axes += found
    return axes


def _in_range(axis: int, layout: Layout) -> int:
    if not -layout.ndim <= axis < layout.ndim:
        raise UsageError(
            f"Axis {axis} is out of range: the array has {layout.ndim} axes ({layout}).",
            f"Axes count from 0 to {layout.ndim - 1}, or from -{layout.ndim} to -1.",
        )
    return axis % layout.ndim


def _ascending(axes: list[int], text: str, layout: Layout) -> tuple[int, ...]:
    for axis in axes:
        if axes.count(axis) > 1:
            raise UsageError(
                f"{text!r} names axis {axis} ({layout.axis_label(axis)}) twice.",
                "Name each axis once; -1 is the last axis, and S all spatial ones.",
            )
    return tuple(sorted(axes))
