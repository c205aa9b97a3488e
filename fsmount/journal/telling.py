"""Tells the log what becomes of ops, whichever call did it.

Invariant: an op that begins to wait, is held, given up or replaced is told of once, after its transaction; one that was
rolled back never. What happens to an op that is being sent is told by whoever sends it.
"""

from __future__ import annotations

import sqlite3

from fsmount.journal.part import Part
from fsmount.model import OpId, OpKind, Reason, RemotePath, State
from fsmount.ports import Details, EventLog

_LISTEN = """
CREATE TEMP TABLE told (op_id TEXT, kind TEXT, path TEXT, before TEXT, after TEXT);
CREATE TEMP TRIGGER tell_new AFTER INSERT ON main.op WHEN NEW.state = 'pending'
    BEGIN INSERT INTO told VALUES (NEW.op_id, NEW.kind, coalesce(NEW.to_path, NEW.path), NULL, NEW.state); END;
CREATE TEMP TRIGGER tell_change AFTER UPDATE OF state ON main.op
    WHEN NEW.state <> OLD.state AND OLD.state <> 'sending' AND NEW.state IN ('pending', 'held', 'discarded')
    BEGIN INSERT INTO told
        VALUES (NEW.op_id, NEW.kind, coalesce(NEW.to_path, NEW.path), OLD.state, NEW.state); END;
CREATE TEMP TRIGGER tell_end AFTER DELETE ON main.op WHEN OLD.state IN ('pending', 'held')
    BEGIN INSERT INTO told VALUES (OLD.op_id, OLD.kind, coalesce(OLD.to_path, OLD.path), OLD.state, NULL); END;
"""
"""Triggers of this connection alone: they see every change, and a rollback takes back what they wrote."""
_TOLD = (
    "SELECT told.*, op.reason, op.attempts, op.superseded_by, op.message, op.body_size"
    " FROM temp.told LEFT JOIN main.op USING (op_id) ORDER BY told.rowid"
)


class Telling(Part):
    """Writes ``op.queued``, ``op.held``, ``op.discarded`` and ``op.superseded``."""

    def tell(self, log: EventLog) -> None:
        """From now on ``log`` is told; once, after recovery."""
        self._db.connection.executescript(_LISTEN)
        self._db.watch(lambda: self._tell(log))

    def _tell(self, log: EventLog) -> None:
        rows = self._db.all(_TOLD)
        if not rows:
            return
        self._db.run("DELETE FROM temp.told")
        for row in rows:
            _note(log, row)


def _note(log: EventLog, row: sqlite3.Row) -> None:
    event, message = _what_happened(row)
    log.note(
        event,
        message,
        op=OpId(row["op_id"]),
        path=RemotePath(row["path"]),
        level="debug" if row["before"] is None or row["after"] is None else "info",
        details=Details(
            kind=OpKind(row["kind"]),
            reason=None if row["reason"] is None else Reason(row["reason"]),
            attempt=row["attempts"] or None,
            state=row["after"],
        ),
    )


def _what_happened(row: sqlite3.Row) -> tuple[str, str]:
    """The event, and what a person reads; a row of the join is empty where the op has gone since."""
    kind, after, size = row["kind"], row["after"], row["body_size"]
    if after is None:
        return "op.superseded", f"{kind}: replaced before it was sent"
    if row["superseded_by"] is not None:
        return "op.superseded", f"by {row['superseded_by']}"
    if after == State.HELD:
        return "op.held", f"{kind}: {row['message'] or 'waits for a decision'}"
    if after == State.DISCARDED:
        return "op.discarded", row["message"] or "given up"
    what = kind if size is None else f"{kind} {size} bytes"
    again = {None: "", State.HELD: ", let go"}.get(row["before"], ", to be tried again")
    return "op.queued", what + again
