"""One of several parts of an array, measured by itself and merged later.

An array is cut into cells, counted in order of storage, and part i of N takes a run of them. The
cut follows from the shape, the chunks and N alone, so that jobs which know nothing of each other
cut alike. Each part says what it took, so that merging can prove that nothing is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from normcli.errors import UsageError

MOST_PARTS = 1_000_000


@dataclass(frozen=True)
class Part:
    """A run of cells of an array.

    Attributes
    ----------
    number, of : int
        Which part it is, from 1, and how many there are.
    cell : tuple of int
        Extents of a cell in elements; cells at the upper edges may be smaller.
    first, stop : int
        The cells it holds, half-open, counted from the slowest axis in storage to the fastest.
    """

    number: int
    of: int
    cell: tuple[int, ...]
    first: int
    stop: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of or not 0 <= self.first <= self.stop:
            raise UsageError(
                f"Part {self.number} of {self.of} with the cells {self.first} to {self.stop} is "
                "none."
            )
        if any(extent < 1 for extent in self.cell):
            raise UsageError(f"A cell of {self.cell} elements is none.")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_part(text: str) -> tuple[int, int]:
    """Return number and count of ``3/16``.

    Raises
    ------
    UsageError
        When it is not of that form, or the number is not from 1 to the count.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of <= MOST_PARTS:
        raise UsageError(
            f"--part {text} is no part.",
            "Give i/N with i from 1 to N, such as 3/16; in a SLURM array: "
            "--part $SLURM_ARRAY_TASK_ID/16 with --array=1-16.",
        )
    return number, of


def boxes(first: int, stop: int, counts: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the boxes that a run of C-ordered positions consists of, in order.

    Parameters
    ----------
    first, stop : int
        The run, half-open.
    counts : tuple of int
        Extents of the space of positions, the slowest axis first.

    Yields
    ------
    tuple of (int, int)
        Half-open bounds along each axis; at most ``2 * len(counts) - 1`` boxes come.

    Examples
    --------
    >>> list(boxes(2, 9, (4, 3)))
    [((0, 1), (2, 3)), ((1, 3), (0, 3))]
    """
    if first >= stop:
        return
    if not counts:
        yield ()
        return
    inner = 1
    for count in counts[1:]:
        inner *= count
    low, head = divmod(first, inner)
    high, tail = divmod(stop, inner)
    if low == high:
        yield from (((low, low + 1), *rest) for rest in boxes(head, tail, counts[1:]))
        return
    if head:
        yield from (((low, low + 1), *rest) for rest in boxes(head, inner, counts[1:]))
        low += 1
    if low < high:
        yield ((low, high), *((0, count) for count in counts[1:]))
    if tail:
        yield from (((high, high + 1), *rest) for rest in boxes(0, tail, counts[1:]))
