"""Opening a state directory: what the daemon and the offline commands do alike.

Invariant: whoever holds the lock has recovered the journal before looking at it.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from fsmount.errors import JournalDamaged
from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal, open_journal, stand_in
from fsmount.model import Body, DraftId, Problem, Timing
from fsmount.ports import Clock, Details
from fsmount.render import advice
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory


def opened(state: StateDirectory, remote: str, clock: Clock, timing: Timing) -> SqliteJournal:
    """The journal of a state directory, for a daemon; raises StateError.

    Where the one that belongs to this remote is damaged, its files stay as they are and an empty one stands in for it:
    the mount can only read then, which ``damage`` tells.
    """
    identity = state.identity()
    try:
        return open_journal(state.journal, clock, timing, known=identity is not None)
    except JournalDamaged as error:
        if identity is None or identity.remote != remote:
            raise
        return stand_in(error.message, clock, timing)


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
    unnamed = spool.unnamed(*journal.bodies())
    if journal.lost_commits and unnamed:
        spool.set_apart(unnamed)
        log.note("mount", advice.apart(spool.apart()), level="warning")
    else:
        journal.let_go(unnamed)


def problems_apart(spool: FileSpool) -> list[Problem]:
    """A problem a file whose change the end of the journal forgot, the oldest first."""
    return [Problem(path=one.path, why=advice.why_apart(one)) for one in spool.apart()]


def remove_released(leaving: Collection[Body], journal: SqliteJournal, spool: FileSpool) -> None:
    """After ``durable``: removes those that no op has come to need since; what cannot be removed is left to a start."""
    for body in journal.released(leaving):
        with suppress(OSError):
            spool.remove(body)


def unresolved(journal: SqliteJournal) -> int:
    """Ops that are not delivered: waiting, being sent, held, or dead."""
    counts = journal.counts()
    return counts.pending + counts.sending + counts.held + counts.dead
