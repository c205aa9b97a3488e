"""Opening a state directory: what the daemon and the offline commands do alike.

Invariant: whoever holds the lock has recovered the journal before looking at it.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal
from fsmount.model import Body, DraftId
from fsmount.ports import Details
from fsmount.spool import FileSpool


def recover(journal: SqliteJournal, spool: FileSpool, log: FileEventLog) -> None:
    """What a daemon that ended in the middle left: drafts become dead letters, what nothing refers to is let go."""

    def size_of(draft_id: DraftId) -> int | None:
        try:
            draft = spool.open_draft(draft_id)
        except OSError:
            return None
        size = draft.size
        draft.close()
        return size

    for op_id in journal.recover(size_of):
        record = journal.record(op_id)
        if record is not None:
            log.note(
                "op.dead",
                f"interrupted: {record.message}",
                op=op_id,
                path=record.op.path,
                level="warning",
                details=Details(kind=record.op.kind, reason=record.reason, state=record.state),
            )
    journal.let_go(spool.unnamed(*journal.bodies()))


def remove_released(leaving: Collection[Body], journal: SqliteJournal, spool: FileSpool) -> None:
    """After ``durable``: removes those that no op has come to need since; what cannot be removed is left to a start."""
    for body in journal.released(leaving):
        with suppress(OSError):
            spool.remove(body)


def unresolved(journal: SqliteJournal) -> int:
    """Ops that are not delivered: waiting, being sent, held, or dead."""
    counts = journal.counts()
    return counts.pending + counts.sending + counts.held + counts.dead
