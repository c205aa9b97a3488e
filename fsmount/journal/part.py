"""What the journal's parts share: rows of one op, the names it touches, bodies that nothing refers to any more.

Invariant: an op's ``touch`` rows exist exactly while it is unsettled and decides something: pending, sending, held, or
a dead letter that stands at its path. A held rmdir decides nothing once a person brought back what was below it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from fsmount import lifecycle
from fsmount.journal.database import Database
from fsmount.journal.rows import COLUMNS, body_of, new_op_id, record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    ABSENT,
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
    Timing,
    parent_of,
)  # fmt: skip
from fsmount.ports import Clock

_INSERT = f"INSERT INTO op ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - fixed names
FORCEABLE = (Reason.CONFLICT, Reason.REMOTE_DELETED)
"""Dead letters that a person may let win."""


class Part:
    """The connection, the clocks and the row operations that every part of the journal uses."""

    def __init__(self, database: Database, clock: Clock, timing: Timing) -> None:
        self._db = database
        self._clock = clock
        self._timing = timing
        row = database.one("SELECT max(seq) FROM op")
        self._seq: int = (row[0] if row else None) or 0
        self._released: dict[Body, None] = {}
        self._leaving: list[Callable[[OpId], None]] = []

    def watch_leaving(self, leaves: Callable[[OpId], None]) -> None:
        self._leaving.append(leaves)

    # one op's row

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _draw_up(
        self,
        kind: OpKind,
        path: RemotePath,
        base: Base,
        *,
        to: tuple[RemotePath, Base] | None = None,
        body: Body | None = None,
        content_type: str | None = None,
        seq: int | None = None,
    ) -> Op:
        """A new op, not yet in the journal; at the end of the order, or in the place ``seq`` of one that goes."""
        now = self._clock.now()
        return Op(
            op_id=new_op_id(now),
            seq=self._next_seq() if seq is None else seq,
            kind=kind,
            path=path,
            base=base,
            to_path=None if to is None else to[0],
            to_base=None if to is None else to[1],
            body=body,
            content_type=content_type,
            created_at=now,
        )

    def _insert(
        self,
        op: Op,
        *,
        not_before: float,
        burst_at: float,
        still_open: bool = False,
        state: Literal[State.PENDING, State.DISCARDED] = State.PENDING,
    ) -> OpId:
        to = op.to_base or ABSENT
        self._db.run(
            _INSERT, op.seq, op.op_id, op.kind, state, op.path, op.base.revision, op.base.digest, op.to_path,
            to.revision, to.digest, *body_columns(op.body), op.content_type, still_open, not_before, burst_at,
            op.created_at,
        )  # fmt: skip
        if state is State.PENDING:
            self._touch(op)
        return op.op_id

    def _touch(self, op: Op) -> None:
        names = {op.path: int(op.kind is OpKind.PUT)}
        if op.to_path is not None and op.step == 0:
            names[op.to_path] = 1
        for path, target in names.items():
            self._db.run(
                "INSERT INTO touch (path, seq, parent, target) VALUES (?,?,?,?)", path, op.seq, parent_of(path), target
            )

    def _untouch(self, op: Op) -> None:
        self._db.run("DELETE FROM touch WHERE path IN (?, ?) AND seq = ?", op.path, op.to_path, op.seq)

    def _remove(self, record: Record, event: Event) -> None:
        """The row goes, and with it whatever body nothing else refers to."""
        lifecycle.after(record.state, event)
        op = record.op
        for leaves in self._leaving:
            leaves(op.op_id)
        self._untouch(op)
        self._db.run("DELETE FROM attempt WHERE op_id = ?", op.op_id)
        self._db.run("DELETE FROM op WHERE seq = ?", op.seq)
        self._release(op.body)
        if record.theirs is not None:
            self._release(record.theirs.body)
        if op.kind is OpKind.DELETE:
            self._forget_node(RemotePath(op.op_id))
        if event is Event.PURGE and record.accepted:
            self._db.run("DELETE FROM delivered WHERE op_id = ?", op.op_id)

    def _move_to(
        self, record: Record, event: Event, *, reason: Reason | None = None, message: str = "", by: OpId | None = None
    ) -> None:
        """Writes the state that follows ``event``; a settled op keeps its names only where it goes on deciding."""
        state = lifecycle.after(record.state, event)
        settled = self._clock.now() if state in (State.DEAD, State.DISCARDED) else None
        self._db.run(
            "UPDATE op SET state = ?, reason = coalesce(?, reason), message = ?, settled_at = ?,"
            " superseded_by = coalesce(?, superseded_by), open = 0 WHERE seq = ?",
            state, reason, message, settled, by, record.op.seq,
        )  # fmt: skip
        if state is State.DISCARDED or reason in NOT_OVERLAID:
            self._untouch(record.op)
        elif state is State.DEAD and record.op.step:
            # Its new name is there and the remote's own: what is left to decide is the old one.
            self._untouch(record.op)
            self._touch(record.op)

    def _set_base(self, op: Op, path: RemotePath, base: Base) -> None:
        """The op is made from ``base`` at ``path``, one of its names."""
        prefix = "to_base" if path == op.to_path else "base"
        self._db.run(
            f"UPDATE op SET {prefix}_revision = ?, {prefix}_digest = ? WHERE seq = ?",  # noqa: S608 - fixed names
            base.revision, base.digest, op.seq,
        )  # fmt: skip

    def _discard(self, record: Record, message: str, *, event: Event = Event.DISCARD, by: OpId | None = None) -> None:
        self._move_to(record, event, message=message, by=by)
        self._count(**{"superseded" if event is Event.SUPERSEDE else "discarded": 1})

    # finding

    def _row(self, op_id: OpId) -> sqlite3.Row | None:
        return self._db.one("SELECT * FROM op WHERE op_id = ?", op_id)

    def _newest(self, path: RemotePath) -> Record | None:
        """The newest unsettled op that has ``path`` as one of its names and decides what stands there."""
        row = self._db.one(
            "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND sound ORDER BY touch.seq DESC LIMIT 1",
            path,
        )
        return None if row is None else record_of(row)

    @staticmethod
    def _empties(record: Record, path: RemotePath) -> bool:
        """Whether nothing stands at ``path`` because of this op: it moves or takes away what did."""
        op = record.op
        return op.target != path or (op.kind in (OpKind.DELETE, OpKind.RMDIR) and record.state is not State.DEAD)

    def _active(self, path: RemotePath) -> bool:
        """Whether an op that may still reach the remote has ``path`` as a name."""
        row = self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path = ? AND sound"
            " AND state IN ('pending', 'sending', 'held') LIMIT 1",
            path,
        )
        return row is not None

    def _later(self, path: RemotePath, seq: int) -> bool:
        """Whether an op after ``seq`` has ``path`` as a name."""
        row = self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path = ? AND touch.seq > ? AND sound LIMIT 1",
            path,
            seq,
        )
        return row is not None

    def inherited(self, path: RemotePath) -> Base | None:
        newest = self._newest(path)
        return None if newest is None or newest.op.kind is OpKind.RMDIR else newest.op.base_of(path)

    # bodies

    def _put_aside(self, path: RemotePath, op_id: OpId) -> sqlite3.Row | None:
        """The row and the attributes of a file that is deleted go under the name of the delete; the row as it is then.

        A delete that fails or is given up gives them back. What exists here alone cannot come back, and goes.
        """
        row = self._db.one(
            "UPDATE OR REPLACE node SET path = ?2, parent = '' WHERE path = ?1 AND kind IS NULL AND body_size IS NULL"
            " RETURNING *", path, op_id,
        )  # fmt: skip
        self._db.run("UPDATE OR REPLACE xattr SET path = ?2 WHERE path = ?1", path, op_id)
        return row or self._forget_node(path)

    def _give_back(self, delete: Op) -> None:
        """What was put aside for it; what was made under the name since has its own."""
        if delete.kind is not OpKind.DELETE:
            return
        self._db.run(
            "UPDATE OR IGNORE node SET path = ?2, parent = ?3 WHERE path = ?1",
            delete.op_id, delete.path, parent_of(delete.path),
        )  # fmt: skip
        self._db.run("UPDATE OR IGNORE xattr SET path = ?2 WHERE path = ?1", delete.op_id, delete.path)
        self._forget_node(RemotePath(delete.op_id))

    def _forget_node(self, path: RemotePath) -> sqlite3.Row | None:
        """The row that went."""
        self._db.run("DELETE FROM xattr WHERE path = ?", path)
        row = self._db.one("DELETE FROM node WHERE path = ? RETURNING *", path)
        if row is not None:
            self._release(body_of(row))
        return row

    def _release(self, body: Body | None) -> None:
        """Notes a body that a row referred to until now; ``released`` hands it on if none does any more."""
        if body is not None:
            self._released[body] = None

    def let_go(self, bodies: Iterable[Body]) -> None:
        self._released.update(dict.fromkeys(bodies))

    def leaving(self) -> list[Body]:
        return [body for body in self._released if not self._referenced(body)]

    def released(self, among: Collection[Body] | None = None) -> list[Body]:
        gone = [body for body in self._released if among is None or body in among]
        for body in gone:
            del self._released[body]
        return [body for body in gone if not self._referenced(body)]

    def _referenced(self, body: Body) -> bool:
        if body.draft is not None:
            return self._any(
                body.draft,
                "SELECT 1 FROM op WHERE body_draft = ?",
                "SELECT 1 FROM draft WHERE draft_id = ?",
                "SELECT 1 FROM node WHERE body_draft = ?",
            )
        return self._any(
            body.digest,
            "SELECT 1 FROM op WHERE body_digest = ? AND body_draft IS NULL",
            "SELECT 1 FROM op WHERE theirs_digest = ? AND theirs_size IS NOT NULL",
            "SELECT 1 FROM node WHERE body_digest = ? AND body_draft IS NULL",
        )

    def _any(self, value: str | None, *queries: str) -> bool:
        return any(self._db.one(query, value) is not None for query in queries)

    def _count(self, **counters: int) -> None:
        changes = ", ".join(f"{name} = {name} + {int(by)}" for name, by in counters.items())
        self._db.run(f"UPDATE total SET {changes}")  # noqa: S608 - the names are ours


def conflict_name(op: Op) -> RemotePath:
    """The name that the op's next request changes."""
    return op.path if op.step else op.target


def names_to_decide(op: Op) -> set[RemotePath]:
    """The names of a settled op that trying it again would change: a move whose new name is there has one left."""
    return {op.path} if op.step else {op.path, op.target}


def body_columns(body: Body | None) -> tuple[int | None, str | None, str | None]:
    """The values of ``body_size``, ``body_digest`` and ``body_draft``."""
    return (None, None, None) if body is None else (body.size, body.digest, body.draft)
