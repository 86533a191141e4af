"""All objects of an HDF5 file, each opened from its own group.

h5py's `visititems` opens each object by its whole path, which takes the square of the depth: 20 s
for 3,000 groups in each other, and 0.1 s here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import h5py

from normcli.arrays.hdf5_names import text_of

Node: TypeAlias = "h5py.Group | h5py.Dataset | h5py.Datatype"


@dataclass(frozen=True)
class Found:
    """One link of a file, and what it leads to.

    Attributes
    ----------
    names : list of bytes
        The links that lead here from the root. Valid until the next one is asked for.
    node : h5py object or None
        What it leads to; None where it is no hard link, which is not followed.
    first : bool
        Whether no earlier link led to the same object.
    """

    names: list[bytes]
    node: Node | None
    first: bool

    @property
    def path(self) -> str:
        """The names as a path without the first slash."""
        return "/".join(map(text_of, self.names))


def walk(file: h5py.File) -> Iterator[Found]:
    """Yield every link of a file, by names in each group; groups before what they hold.

    What a group holds is told once, also where several links lead to it, or one of its own.
    """
    seen = {_identity(file)}
    names: list[bytes] = []
    # Groups that are being walked, with the links that they have left; the last one is innermost.
    stack = [(file, _links(file))]
    while stack:
        group, links = stack[-1]
        if not links:
            stack.pop()
            if names:
                names.pop()
            continue
        name, hard = links.pop()
        names.append(name)
        node: Node | None = None
        first = False
        if hard:
            node = group[name]
            identity = _identity(node)
            first = identity not in seen
            seen.add(identity)
        yield Found(names, node, first)
        if first and isinstance(node, h5py.Group):
            stack.append((node, _links(node)))
        else:
            names.pop()


def _identity(node: Node) -> tuple[int, int]:
    info = h5py.h5o.get_info(node.id)
    return info.fileno, info.addr


def _links(group: h5py.Group) -> list[tuple[bytes, bool]]:
    """Return the names in a group, the first one last, and whether each is a hard link."""
    found: list[tuple[bytes, bool]] = []

    def take(name: bytes, info: h5py.h5l.LinkInfo) -> None:
        found.append((name, info.type == h5py.h5l.TYPE_HARD))

    group.id.links.iterate(take, info=True)
    found.reverse()
    return found
