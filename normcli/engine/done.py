"""What is known to be done of a pass, and how a journal spells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from normcli.arrays.access import StoredPart
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.losses import NO_LOSSES, Losses
from normcli.engine.journal_file import Line, pack_arrays, unpack_arrays
from normcli.engine.journal_sums import Sums, pack_sums, unpack_sums
from normcli.engine.report import Tally


@dataclass
class Done:
    """What is known to be done of one pass.

    Attributes
    ----------
    runs : set of int
        Numbers of the runs.
    nodes : dict
        Moments (or sums over pairs) of nodes of the merge trees by region, first rank and level,
        with their place in the statistics.
    stored : set of int
        Regions whose moments are in a container already.
    tally : Tally
        Counts over these regions.
    written : dict of int to ExactMoments
        Moments of what each run wrote.
    parts : list of StoredPart
        What the runs left in the output.
    stored_parts : list of StoredPart
        What they left in the container of moments.
    blocks : int
        Blocks of these runs.
    losses : Losses
        What they wrote that the type of the output could not hold.
    """

    runs: set[int] = field(default_factory=set)
    nodes: dict[tuple[int, int, int], tuple[tuple[slice, ...], Sums]] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    written: dict[int, ExactMoments] = field(default_factory=dict)
    parts: list[StoredPart] = field(default_factory=list)
    stored_parts: list[StoredPart] = field(default_factory=list)
    blocks: int = 0
    losses: Losses = NO_LOSSES

    def __bool__(self) -> bool:
        return bool(self.runs)

    def update(self, other: Done) -> None:
        """Add what another holds."""
        self.runs |= other.runs
        self.nodes.update(other.nodes)
        self.stored |= other.stored
        self.tally += other.tally
        self.written.update(other.written)
        self.parts += other.parts
        self.stored_parts += other.stored_parts
        self.blocks += other.blocks
        self.losses += other.losses

    def light(self) -> Done:
        """Return the same without moments, which the trees hold."""
        return Done(
            runs=self.runs,
            parts=self.parts,
            stored_parts=self.stored_parts,
            blocks=self.blocks,
            losses=self.losses,
        )

    def largest_nodes(self) -> dict[tuple[int, int, int], tuple[tuple[slice, ...], Sums]]:
        """Return the nodes that are not inside of others, nor of regions that are stored."""
        found: dict[tuple[int, int, int], tuple[tuple[slice, ...], Sums]] = {}
        ends: dict[int, int] = {}
        for region, first, level in sorted(self.nodes, key=lambda key: (key[0], key[1], -key[2])):
            if region in self.stored or first < ends.get(region, 0):
                continue
            ends[region] = first + (1 << level)
            found[region, first, level] = self.nodes[region, first, level]
        return found


def done_to_json(done: Done) -> Line:
    """Return what is done as JSON can hold it."""
    line: Line = {"runs": sorted(done.runs), "blocks": done.blocks}
    if done.nodes:
        line["nodes"] = [
            [*key, [[s.start, s.stop] for s in index], pack_sums(moments)]
            for key, (index, moments) in done.nodes.items()
        ]
    if done.stored:
        line["stored"] = sorted(done.stored)
        line["tally"] = asdict(done.tally)
    if done.written:
        line["written"] = [[run, pack_arrays(moments)] for run, moments in done.written.items()]
    if done.losses:
        line["losses"] = done.losses.as_dict()
    for name in ("parts", "stored_parts"):
        parts: Iterable[StoredPart] = getattr(done, name)
        if parts:
            line[name] = [[part.key, part.nbytes, part.crc32c] for part in parts]
    return line


def done_from_json(line: Line) -> Done:
    """Return what `done_to_json` took apart.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it is not what that function writes.
    """
    return Done(
        runs=set(line["runs"]),
        nodes={
            (region, first, level): (
                tuple(slice(*bounds) for bounds in index),
                unpack_sums(packed),
            )
            for region, first, level, index, packed in line.get("nodes", ())
        },
        stored=set(line.get("stored", ())),
        tally=tally_from_json(line["tally"]) if "tally" in line else Tally(),
        written={
            run: unpack_arrays(ExactMoments, packed) for run, packed in line.get("written", ())
        },
        parts=[StoredPart(*part) for part in line.get("parts", ())],
        stored_parts=[StoredPart(*part) for part in line.get("stored_parts", ())],
        blocks=line["blocks"],
        losses=Losses(**line.get("losses", {})),
    )


def tally_from_json(values: Mapping[str, Any]) -> Tally:
    """Return the counts that `dataclasses.asdict` took apart."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Tally(**plain)
