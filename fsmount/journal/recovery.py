"""What a start makes of what the last daemon left in the middle.

Invariant: no draft's bytes are forgotten: they are an op's body, a litter file's, or a dead letter of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from fsmount import lifecycle
from fsmount.journal.part import Part
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    Base,
    Body,
    DraftId,
    OpId,
    OpKind,
    Reason,
    Record,
    RemotePath,
    State,
    content_type_of,
)  # fmt: skip

_INTERRUPTED = "the daemon ended while a program had this file open for writing; these are the bytes it had written"


class Recovery(Part):
    """Run once, before anything else changes the journal."""

    def recover(self, size_of: Callable[[DraftId], int | None]) -> list[OpId]:
        """What was being sent is pending again, everything is due, and every draft not closed is a dead letter.

        ``size_of`` tells the length of a draft file, None if it is not there. Returns the ops of the drafts.
        """
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET state = ? WHERE state = 'sending'", lifecycle.after(State.SENDING, Event.POSTPONE)
            )
            self._db.run(
                "UPDATE op SET not_before = 0, burst_at = 0"
                " WHERE state = 'pending' AND (not_before <> 0 OR burst_at <> 0)"
            )
            self._db.run("UPDATE op SET open = 0 WHERE open <> 0")
            found = []
            for row in self._db.all("SELECT * FROM draft"):
                draft_id, size = DraftId(row["draft_id"]), size_of(row["draft_id"])
                if row["local"]:
                    self._keep_litter(draft_id, size)
                elif size is not None:
                    base = Base(row["base_revision"], row["base_digest"])
                    found.append(self._interrupt(draft_id, size, RemotePath(row["path"]), base, row["op_id"]))
            self._db.run("DELETE FROM draft")
            return [op_id for op_id in found if op_id is not None]

    def _keep_litter(self, draft_id: DraftId, size: int | None) -> None:
        self._db.run("UPDATE node SET body_size = ?, body_digest = NULL WHERE body_draft = ?", size or 0, draft_id)
        self._release(Body(size=0, digest=None, draft=draft_id))

    def _interrupt(
        self, draft_id: DraftId, size: int, path: RemotePath, base: Base, op_id: OpId | None
    ) -> OpId | None:  # fmt: skip
        """The dead letter that holds the draft; None where its bytes are not the newest of an op that may be sent."""
        record = self._writer(draft_id, op_id)
        if record is None:
            body = Body(size=size, digest=None, draft=draft_id)
            op = self._draw_up(OpKind.PUT, path, base, body=body, content_type=content_type_of(path))
            self._insert(op, not_before=0, burst_at=0)
            record = Record(op=op, state=State.PENDING)
        elif record.malformed is not None or record.state not in (State.PENDING, State.HELD):
            return None
        else:
            self._db.run("UPDATE op SET body_size = ?, body_digest = NULL WHERE seq = ?", size, record.op.seq)
        self._move_to(record, Event.INTERRUPT, reason=Reason.INTERRUPTED, message=_INTERRUPTED)
        self._count(failed_writebacks=1)
        return record.op.op_id

    def _writer(self, draft_id: DraftId, op_id: OpId | None) -> Record | None:
        """The op whose body the draft is."""
        row = self._db.one("SELECT * FROM op WHERE op_id = ? AND body_draft = ?", op_id, draft_id)
        return None if row is None else record_of(row)
