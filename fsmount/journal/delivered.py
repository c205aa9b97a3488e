"""What the remote took, for as long as the provider behind it may still fail.

Invariant: at most one row a path, that of our newest accepted op there: whatever was overwritten or taken back since
is nobody's failure any more. A dead letter ``provider-failed`` has no body and touches no name: the remote holds what
was written. It keeps its row here, so that what comes next is told of the same op, with its attempts.
"""

from __future__ import annotations

import sqlite3

from fsmount.journal.part import Part
from fsmount.journal.rows import HISTORY, new_op_id, record_of
from fsmount.lifecycle import Event, after
from fsmount.model import Attempt, Claim, Delivered, Op, OpId, OpKind, Reason, Receipt, RemotePath, Revision, State

REMEMBERED = 20_000
"""Accepted ops whose result is awaited; older ones are forgotten."""
TRIMMED_EVERY = 256
_WITHOUT_OP = "op_id NOT IN (SELECT op_id FROM op WHERE accepted)"


class DeliveredOps(Part):
    """Remembers what was accepted and makes dead letters of what failed behind the remote."""

    # what was accepted

    def _remember(self, op_id: OpId, kind: OpKind, path: RemotePath, op: Op, receipt: Receipt) -> None:
        """The remote took that put or delete of ``path`` for ``op``: what it took there before is history."""
        self._forget_delivered(path)
        revision = receipt.tombstone if kind is OpKind.DELETE else receipt.revision
        if revision is None and receipt.remote_op_id is None:
            return
        base = op.base_of(path)
        number = self._db.run(
            "INSERT INTO delivered (op_id, path, kind, revision, remote_op_id, base_revision, base_digest,"
            " content_type, created_at) VALUES (?,?,?,?,?,?,?,?,?)",
            op_id, path, kind, revision, receipt.remote_op_id, base.revision, base.digest, op.content_type,
            op.created_at,
        ).lastrowid or 0  # fmt: skip
        if number % TRIMMED_EVERY == 0:
            self._db.run(f"DELETE FROM delivered WHERE id <= ? AND {_WITHOUT_OP}", number - REMEMBERED)  # noqa: S608

    def _remember_move(self, op: Op, receipt: Receipt) -> None:
        """Half of a move: its new name was put, or its old one removed. Each half has an op of its own at the remote,
        and so an id of its own here."""
        kind, path = (OpKind.DELETE, op.path) if op.step else (OpKind.PUT, op.target)
        self._remember(new_op_id(self._clock.now()), kind, path, op, receipt)

    def _forget_delivered(self, path: RemotePath) -> None:
        row = self._db.one("DELETE FROM delivered WHERE path = ? RETURNING op_id, attempts", path)
        if row is not None and row["attempts"]:
            self._db.run(
                "DELETE FROM attempt WHERE op_id = ?1 AND NOT EXISTS (SELECT 1 FROM op WHERE op_id = ?1)", row["op_id"]
            )

    # finding

    def delivered_at(self, path: RemotePath, revision: Revision | None) -> Delivered | None:
        row = self._db.one("SELECT * FROM delivered WHERE path = ? AND revision = ?", path, revision)
        return None if row is None else _delivered(row)

    def delivered_as(self, remote_op_id: str) -> Delivered | None:
        row = self._db.one("SELECT * FROM delivered WHERE remote_op_id = ?", remote_op_id)
        return None if row is None else _delivered(row)

    def forget_deliveries(self) -> None:
        """Nothing is awaited any more: what was accepted was another remote's."""
        with self._db.transaction():
            self._db.run("DELETE FROM delivered")

    def awaits_results(self) -> bool:
        return self._db.one("SELECT 1 FROM delivered LIMIT 1") is not None

    # what the provider said

    def provider_failed(self, delivered: Delivered, message: str, attempt: Attempt) -> bool:
        with self._db.transaction():
            row = self._row(delivered.op_id)
            if row is not None:
                return False
            kept = self._db.one("SELECT * FROM delivered WHERE op_id = ?", delivered.op_id)
            if kept is None:
                return False
            self._lay_out(kept, delivered, message)
            self._add_attempt(delivered.op_id, attempt)
            self._db.run("UPDATE delivered SET attempts = attempts + 1 WHERE op_id = ?", delivered.op_id)
            self._count(failed_writebacks=1)
            return True

    def _lay_out(self, kept: sqlite3.Row, delivered: Delivered, message: str) -> None:
        """The dead letter; no name is touched by it."""
        self._db.run(
            "INSERT INTO op (seq, op_id, kind, state, path, base_revision, base_digest, content_type, attempts,"
            " attempted, accepted, created_at, settled_at, reason, message, remote_op_id)"
            " VALUES (?,?,?,?,?,?,?,?,?,1,1,?,?,?,?,?)",
            self._next_seq(), kept["op_id"], kept["kind"], State.DEAD, kept["path"], kept["base_revision"],
            kept["base_digest"], kept["content_type"], kept["attempts"] + 1, kept["created_at"], self._clock.now(),
            Reason.PROVIDER_FAILED, message, delivered.remote_op_id,
        )  # fmt: skip

    def provider_succeeded(self, delivered: Delivered) -> bool:
        with self._db.transaction():
            row = self._row(delivered.op_id)
            gone = row is not None and row["state"] in (State.DEAD, State.PENDING)
            if row is not None and gone:
                self._remove(record_of(row), Event.ACKNOWLEDGE)
            self._forget_delivered(delivered.path)
            return gone

    def replayed(self, claim: Claim) -> None:
        """The attempts stay: if it fails once more it goes on from there."""
        with self._db.transaction():
            op = claim.op
            row = self._row(op.op_id)
            if row is None or row["state"] != State.SENDING or row["lease"] != claim.lease:
                raise RuntimeError(f"{op.op_id} is not held by lease {claim.lease}")
            after(State.SENDING, Event.ACKNOWLEDGE)
            awaited = self._db.run(
                "UPDATE delivered SET attempts = ? WHERE op_id = ? RETURNING 1", row["attempts"], op.op_id
            ).fetchone()
            if awaited is None:
                self._remove(record_of(row), Event.ACKNOWLEDGE)
                return
            for leaves in self._leaving:
                leaves(op.op_id)
            self._db.run("DELETE FROM op WHERE seq = ?", row["seq"])

    def _supersede_accepted(self, path: RemotePath, by: OpId) -> list[OpId]:
        """What the provider could not take of ``path`` is overwritten now; one that is being replayed settles by
        itself.
        """
        gone = []
        for row in self._db.all(
            "SELECT * FROM op WHERE path = ? AND accepted AND state IN ('dead-letter', 'pending') AND op_id <> ?",
            path, by,
        ):  # fmt: skip
            event = Event.SUPERSEDE if row["state"] == State.DEAD else Event.DISCARD
            self._discard(record_of(row), f"superseded by {by}", event=event, by=by)
            gone.append(OpId(row["op_id"]))
        return gone

    def _add_attempt(self, op_id: OpId, attempt: Attempt) -> None:
        self._db.run(
            "INSERT INTO attempt (op_id, at, status, error, duration, correlation_id, body) VALUES (?,?,?,?,?,?,?)",
            op_id, attempt.at, attempt.status, attempt.error, attempt.duration, attempt.correlation_id, attempt.body,
        )  # fmt: skip
        self._db.run(
            "DELETE FROM attempt WHERE op_id = ?1 AND rowid <="
            " (SELECT rowid FROM attempt WHERE op_id = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
            op_id, HISTORY,
        )  # fmt: skip


def _delivered(row: sqlite3.Row) -> Delivered:
    return Delivered(
        op_id=OpId(row["op_id"]),
        path=RemotePath(row["path"]),
        kind=OpKind(row["kind"]),
        revision=None if row["revision"] is None else Revision(row["revision"]),
        remote_op_id=row["remote_op_id"],
    )
