"""What a run tells while it goes: the engine calls, the console (or nobody) listens."""

from __future__ import annotations

from dataclasses import dataclass

from normcli.planning.plan import Pass, Plan


class Observer:
    """Listens to a run; this one keeps quiet. All calls come from one thread."""

    def note(self, message: str) -> None:
        """Say something that the user may want to know."""

    def warn(self, message: str, hint: str | None = None) -> None:
        """Say something that may be wrong."""

    def planned(self, plan: Plan) -> None:
        """The plan is made; nothing has been read yet."""

    def started(self, work: Pass, position: int, total: int) -> None:
        """Pass number `position` of `total` begins."""

    def advanced(self, progress: Progress) -> None:
        """Some blocks of the current pass are done."""

    def finished(self, seconds: float) -> None:
        """The current pass is done."""

    def failed(self) -> None:
        """The current pass ends early."""

    def kept(self, blocks: int, total: int) -> None:
        """The run ends early; the same command continues with so many blocks done."""


@dataclass(frozen=True)
class Progress:
    """What one task did.

    Attributes
    ----------
    blocks : int
        Blocks done.
    bytes_read, bytes_written : int
        Decoded bytes.
    resumed : bool
        Whether an interrupted run did it.
    """

    blocks: int
    bytes_read: int
    bytes_written: int
    resumed: bool = False
