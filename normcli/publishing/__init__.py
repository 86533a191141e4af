"""Nothing bears an output's name until it is complete.

A run owns a work folder beside its output, on the same file system: the lock that keeps other runs
away, the journal from which an interrupted run is continued, and the draft, which is renamed when
it is whole. Rename is atomic for readers, and durable once the file and its folder are synced.
"""

from normcli.publishing.draft import (
    Draft,
    is_empty,
    output_error,
    refuse_existing,
    refuse_unwritable,
    sync_files,
)
from normcli.publishing.handover import Handover
from normcli.publishing.workplace import WORK_MARK, Workplace, work_folder

__all__ = [
    "WORK_MARK",
    "Draft",
    "Handover",
    "Workplace",
    "is_empty",
    "output_error",
    "refuse_existing",
    "refuse_unwritable",
    "sync_files",
    "work_folder",
]
