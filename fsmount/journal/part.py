"""What the journal's parts share: rows of one op, the names it touches, bodies that nothing refers to any more.

Invariant: an op's ``touch`` rows exist exactly while it is unsettled and decides something: pending, sending, or a dead
letter that stands at its path.
"""

from __future__ import annotations

import sqlite3

from fsmount import lifecycle
from fsmount.journal.database import Database
from fsmount.journal.rows import new_op_id, record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    NOT_OVERLAID,
    Base,
    Body,
    Op,
    OpId,
    OpKind,
    Reason,
    Record,
    RemotePath,
    State,
    ancestors,
    parent_of,
)
from fsmount.ports import Clock, Timing


class Part:
    """The connection, the clocks and the row operations that every part of the journal uses."""

    def __init__(self, database: Database, clock: Clock, timing: Timing) -> None:
        self._db = database
        self._clock = clock
        self._timing = timing
        row = database.one("SELECT max(seq) FROM op")
        self._seq: int = (row[0] if row else None) or 0
        self._released: list[Body] = []

    # one op's row

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _insert(
        self, kind: OpKind, path: RemotePath, base: Base, *, not_before: float, burst_at: float, to_path: RemotePath | None = None,
        to_base: Base | None = None, body: Body | None = None, content_type: str | None = None, still_open: bool = False,
    ) -> OpId:  # fmt: skip
        op = Op(
            op_id=new_op_id(self._clock.now()), seq=self._next_seq(), kind=kind, path=path, base=base, to_path=to_path,
            to_base=to_base, body=body, content_type=content_type, created_at=self._clock.now(),
        )  # fmt: skip
        to = to_base or Base()
        self._db.run(
            "INSERT INTO op (seq, op_id, kind, state, path, base_revision, base_digest, to_path, to_base_revision, to_base_digest,"
            " body_size, body_digest, body_draft, content_type, open, not_before, burst_at, created_at)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            op.seq, op.op_id, kind, State.PENDING, path, base.revision, base.digest, to_path, to.revision, to.digest,
            *body_columns(body), content_type, still_open, not_before, burst_at, op.created_at,
        )  # fmt: skip
        self._touch(op, blocks=True)
        return op.op_id

    def _touch(self, op: Op, *, blocks: bool) -> None:
        names = [(op.path, op.kind is OpKind.PUT)]
        if op.to_path is not None:
            names.append((op.to_path, True))
        rows: dict[tuple[RemotePath, int], tuple[int, str, str, int, int, int]] = {}
        for path, target in names:
            for above in ancestors(path):
                key = (above, 0)
                rows[key] = (
                    op.seq,
                    above,
                    parent_of(above),
                    0,
                    int(target or bool(rows.get(key, (0,) * 6)[4])),
                    int(blocks),
                )
            rows[path, 1] = (op.seq, path, parent_of(path), 1, int(target), int(blocks))
        self._db.connection.executemany(
            "INSERT INTO touch (seq, path, parent, own, target, blocks) VALUES (?,?,?,?,?,?)", rows.values()
        )

    def _untouch(self, seq: int) -> None:
        self._db.run("DELETE FROM touch WHERE seq = ?", seq)

    def _remove(self, record: Record, event: Event) -> None:
        """The row goes, and with it whatever body nothing else refers to."""
        lifecycle.after(record.state, event)
        self._db.run("DELETE FROM op WHERE seq = ?", record.op.seq)
        self._release(record.op.body)
        if record.theirs is not None:
            self._release(record.theirs.body)

    def _move_to(
        self, record: Record, event: Event, *, reason: Reason | None = None, message: str = "", by: OpId | None = None
    ) -> State:
        """Writes the state that follows ``event``; a settled op keeps its row and loses or keeps its names as ``stands`` says."""
        state = lifecycle.after(record.state, event)
        assert state is not None
        settled = self._clock.now() if state in (State.DEAD, State.DISCARDED) else None
        self._db.run(
            "UPDATE op SET state = ?, reason = coalesce(?, reason), message = ?, settled_at = ?, superseded_by = coalesce(?, superseded_by),"
            " open = 0 WHERE seq = ?",
            state, reason, message, settled, by, record.op.seq,
        )  # fmt: skip
        if state is State.DISCARDED or reason in NOT_OVERLAID:
            self._untouch(record.op.seq)
        elif state is State.DEAD:
            self._db.run(
                "UPDATE touch SET blocks = ? WHERE seq = ?", lifecycle.blocks_when_dead(record.op), record.op.seq
            )
        return state

    def _discard(self, record: Record, message: str, *, event: Event = Event.DISCARD, by: OpId | None = None) -> None:
        self._move_to(record, event, message=message, by=by)
        self._count("superseded" if event is Event.SUPERSEDE else "discarded", 1)

    # finding

    def _row(self, op_id: OpId) -> sqlite3.Row | None:
        return self._db.one("SELECT * FROM op WHERE op_id = ?", op_id)

    def _newest(self, path: RemotePath) -> Record | None:
        """The newest unsettled op that has ``path`` as one of its names."""
        row = self._db.one(
            "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND own = 1 ORDER BY seq DESC LIMIT 1",
            path,
        )
        record = None if row is None else record_of(row)
        return record if record is not None and record.malformed is None else None

    def _active_before(self, path: RemotePath, seq: int) -> bool:
        """Whether an earlier op that may still reach the remote has ``path`` as a name."""
        return self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path = ? AND own = 1 AND touch.seq < ?"
            " AND state IN ('pending', 'sending') LIMIT 1", path, seq,
        ) is not None  # fmt: skip

    def inherited(self, path: RemotePath) -> Base | None:
        newest = self._newest(path)
        return None if newest is None or newest.op.kind is OpKind.RMDIR else newest.op.base_of(path)

    # bodies

    def _release(self, body: Body | None) -> None:
        """Notes a body that a row referred to until now; ``released`` hands it on if none does any more."""
        if body is not None:
            self._released.append(body)

    def released(self) -> list[Body]:
        """Bodies that lost their last row since the previous call; the caller removes them from the spool."""
        bodies, self._released = self._released, []
        return [body for body in bodies if not self._referenced(body)]

    def _referenced(self, body: Body) -> bool:
        if body.draft is not None:
            return self._db.one(
                "SELECT 1 FROM op WHERE body_draft = ?1 UNION ALL SELECT 1 FROM draft WHERE draft_id = ?1"
                " UNION ALL SELECT 1 FROM node WHERE body_draft = ?1", body.draft,
            ) is not None  # fmt: skip
        return self._db.one(
            "SELECT 1 FROM op WHERE body_digest = ?1 AND body_draft IS NULL UNION ALL SELECT 1 FROM op WHERE theirs_digest = ?1"
            " AND theirs_size IS NOT NULL UNION ALL SELECT 1 FROM node WHERE body_digest = ?1", body.digest,
        ) is not None  # fmt: skip

    def _count(self, name: str, by: int) -> None:
        self._db.run(
            "INSERT INTO total (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2",
            name,
            by,
        )


def body_columns(body: Body | None) -> tuple[int | None, str | None, str | None]:
    """The values of ``body_size``, ``body_digest`` and ``body_draft``."""
    return (None, None, None) if body is None else (body.size, body.digest, body.draft)
