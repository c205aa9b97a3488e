"""Claiming and settling ops: the journal's side that the uploader writes to.

Invariant: which op may go next is the view ``ready`` and nothing else; an op is settled only by its present lease.
"""

from __future__ import annotations

from fsmount.journal.part import Part
from fsmount.journal.rows import HISTORY, op_of, record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    Attempt,
    Base,
    Body,
    Claim,
    Digest,
    Op,
    OpId,
    OpKind,
    Reason,
    Receipt,
    Record,
    RemotePath,
    State,
    Theirs,
)  # fmt: skip


class Sending(Part):
    """What a claim goes through until it is acknowledged, postponed or a dead letter."""

    def claim(self, limit: int) -> list[Claim]:
        with self._db.transaction():
            claims: list[Claim] = []
            rows = self._db.all(
                "SELECT * FROM ready WHERE +not_before <= ? ORDER BY seq LIMIT ?",
                self._clock.monotonic(),
                limit + self._damaged_pending(),
            )
            for row in rows:
                record = record_of(row)
                if record.malformed is not None or len(claims) == limit:
                    continue
                lease = row["lease"] + 1
                self._db.run(
                    "UPDATE op SET state = ?, attempted = 1, lease = ? WHERE seq = ?",
                    State.SENDING,
                    lease,
                    record.op.seq,
                )
                claims.append(
                    Claim(op=record.op, lease=lease, attempts=record.attempts, budget_start=row["budget_start"])
                )
            return claims

    def _damaged_pending(self) -> int:
        """How many rows at most must be passed over; a damaged one is never claimed and must not hide those behind it."""
        row = self._db.one(
            "SELECT count(*) FROM op WHERE state = 'pending' AND kind NOT IN ('put', 'delete', 'move', 'rmdir')"
        )
        return int(row[0]) if row else 0

    def next_due(self) -> float | None:
        row = self._db.one("SELECT not_before FROM ready ORDER BY not_before LIMIT 1")
        return None if row is None else float(row[0])

    def sealed(self, claim: Claim, body: Body) -> Claim:
        with self._db.transaction():
            draft = claim.op.body.draft if claim.op.body is not None else None
            self._db.run(
                "UPDATE op SET body_size = ?, body_digest = ?, body_draft = ? WHERE body_draft = ?",
                body.size,
                body.digest,
                body.draft,
                draft,
            )
            if body.draft is None:
                self._db.run("DELETE FROM draft WHERE draft_id = ?", draft)
            return self._renewed(claim)

    def acknowledge(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> list[OpId]:
        with self._db.transaction():
            record = self._held(claim)
            op = record.op
            self._learn(op, receipt)
            superseded = self._supersede(op)
            self._remove(record, Event.ACKNOWLEDGE)
            self._count("acknowledged", 1)
            if op.body is not None:
                self._count("bytes_up", op.body.size)
            return superseded

    def _learn(self, op: Op, receipt: Receipt) -> None:
        """Passes the acknowledged state of each name on to later ops and open drafts of it, and to its local times."""
        if op.kind is OpKind.RMDIR:
            return
        arrived = Base(receipt.revision, receipt.digest)
        if op.kind is not OpKind.PUT:
            self._advance(op.path, op.seq, Base())
        if op.kind is not OpKind.DELETE:
            self._advance(op.target, op.seq, arrived)
            self._db.run(
                "UPDATE node SET mtime_revision = ? WHERE path = ? AND mtime_revision IS NULL",
                arrived.revision,
                op.target,
            )

    def _advance(self, path: RemotePath, seq: int, base: Base) -> None:
        for name, prefix in (("path", "base"), ("to_path", "to_base")):
            self._db.run(
                f"UPDATE op SET {prefix}_revision = ?, {prefix}_digest = ? WHERE {name} = ? AND seq > ?"  # noqa: S608 - fixed names
                " AND state IN ('pending', 'dead-letter')", base.revision, base.digest, path, seq,
            )  # fmt: skip
        self._db.run(
            "UPDATE draft SET base_revision = ?, base_digest = ? WHERE path = ?", base.revision, base.digest, path
        )

    def _supersede(self, op: Op) -> list[OpId]:
        """Older dead puts and deletes of the op's names are history now; older discarded ones may not come back after it."""
        gone = []
        for path in {op.path, op.target}:
            self._db.run(
                "UPDATE op SET superseded_by = ? WHERE path = ? AND seq < ? AND state = 'discarded' AND superseded_by IS NULL",
                op.op_id, path, op.seq,
            )  # fmt: skip
            for row in self._db.all(
                "SELECT * FROM op WHERE path = ? AND seq < ? AND state = 'dead-letter' AND kind IN ('put', 'delete')",
                path,
                op.seq,
            ):
                record = record_of(row)
                if record.malformed is None:
                    self._discard(record, f"superseded by {op.op_id}", event=Event.SUPERSEDE, by=op.op_id)
                    gone.append(record.op.op_id)
        return gone

    def step(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> Claim:
        with self._db.transaction():
            op = self._held(claim).op
            self._db.run(
                "UPDATE op SET step = 1, to_base_revision = ?, to_base_digest = ? WHERE seq = ?",
                receipt.revision,
                receipt.digest,
                op.seq,
            )
            self._advance(op.target, op.seq, Base(receipt.revision, receipt.digest))
            return self._renewed(claim)

    def postpone(self, claim: Claim, until: float, attempt: Attempt | None, *, charged: bool) -> None:
        with self._db.transaction():
            record = self._held(claim)
            self._log_attempt(claim.op, attempt, charged=charged)
            self._move_to(record, Event.POSTPONE, message=self._message(attempt, record))
            self._db.run("UPDATE op SET not_before = ? WHERE seq = ?", until, claim.op.seq)

    def rebase(self, claim: Claim, base: Base, attempt: Attempt) -> None:
        with self._db.transaction():
            record = self._held(claim)
            op = record.op
            self._log_attempt(op, attempt, charged=False)
            self._move_to(record, Event.POSTPONE, message=self._message(attempt, record))
            prefix = "to_base" if op.kind is OpKind.MOVE and op.step == 0 else "base"
            self._db.run(
                f"UPDATE op SET {prefix}_revision = ?, {prefix}_digest = ?, not_before = 0 WHERE seq = ?",  # noqa: S608 - fixed names
                base.revision, base.digest, op.seq,
            )  # fmt: skip

    def bury(
        self, claim: Claim, reason: Reason, message: str, attempt: Attempt | None, *, charged: bool, theirs: Theirs | None = None
    ) -> None:  # fmt: skip
        with self._db.transaction():
            record = self._held(claim)
            self._log_attempt(claim.op, attempt, charged=charged)
            self._move_to(record, Event.BURY, reason=reason, message=message)
            self._count("failed_writebacks", 1)
            if theirs is not None:
                self._db.run(
                    "UPDATE op SET theirs_revision = ?, theirs_digest = ?, theirs_size = ? WHERE seq = ?",
                    theirs.base.revision, theirs.base.digest, None if theirs.body is None else theirs.body.size, claim.op.seq,
                )  # fmt: skip

    def sent_digests(self, path: RemotePath) -> frozenset[Digest]:
        rows = self._db.all(
            "SELECT body_digest FROM op WHERE path = ? AND attempted = 1 AND body_digest IS NOT NULL AND body_draft IS NULL",
            path,
        )
        return frozenset(Digest(row[0]) for row in rows)

    def _held(self, claim: Claim) -> Record:
        """The claimed op as the journal has it; a claim that was overtaken is an error of the program."""
        row = self._row(claim.op.op_id)
        if row is None or row["state"] != State.SENDING or row["lease"] != claim.lease:
            raise RuntimeError(f"{claim.op.op_id} is not held by lease {claim.lease}")
        return record_of(row)

    def _renewed(self, claim: Claim) -> Claim:
        row = self._row(claim.op.op_id)
        assert row is not None
        return Claim(op=op_of(row), lease=claim.lease, attempts=claim.attempts, budget_start=claim.budget_start)

    def _message(self, attempt: Attempt | None, record: Record) -> str:
        return record.message if attempt is None or attempt.error is None else attempt.error

    def _log_attempt(self, op: Op, attempt: Attempt | None, *, charged: bool) -> None:
        if attempt is None:
            return
        self._db.run("UPDATE op SET attempts = attempts + ? WHERE seq = ?", int(charged), op.seq)
        self._db.run(
            "INSERT INTO attempt (op_id, at, status, error, duration, correlation_id, body) VALUES (?,?,?,?,?,?,?)",
            op.op_id, attempt.at, attempt.status, attempt.error, attempt.duration, attempt.correlation_id, attempt.body,
        )  # fmt: skip
        self._db.run(
            "DELETE FROM attempt WHERE op_id = ?1 AND at < (SELECT at FROM attempt WHERE op_id = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
            op.op_id, HISTORY - 1,
        )  # fmt: skip
        if attempt.status:
            self._count("failed_attempts", 1)
