"""Claiming and settling ops: the journal's side that the uploader writes to.

Invariant: which op may go next is the view ``ready`` and nothing else; an op is settled only by its present lease.
"""

from __future__ import annotations

from msgspec.structs import replace

from fsmount import lifecycle
from fsmount.journal.delivered import DeliveredOps
from fsmount.journal.part import FORCEABLE, conflict_name
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    ABSENT,
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
    content_type_of,
)  # fmt: skip

_CLAIMED_ONCE = 2
"""``op.forced`` is 1 when a person says so, and one more with each claim."""


class Sending(DeliveredOps):
    """What a claim goes through until it is acknowledged, postponed or a dead letter."""

    def claim(self, limit: int) -> list[Claim]:
        """Up to ``limit`` due ops that are now being sent, in their order; no two of them touch related names."""
        now = self._clock.monotonic()
        query = "SELECT * FROM ready WHERE not_before <= ? ORDER BY not_before LIMIT ?"
        if self._db.one(query, now, 1) is None:
            return []
        with self._db.transaction():
            claims = [self._claimed(record_of(row), row["lease"], row["budget_start"])
                      for row in self._db.all(query, now, limit)]  # fmt: skip
        return sorted(claims, key=lambda claim: claim.op.seq)

    def _claimed(self, record: Record, lease: int, budget_start: int) -> Claim:
        self._db.run(
            "UPDATE op SET state = ?, attempted = 1, lease = ?, forced = forced + (forced > 0) WHERE seq = ?",
            lifecycle.after(record.state, Event.CLAIM), lease + 1, record.op.seq,
        )  # fmt: skip
        return Claim(
            op=record.op, lease=lease + 1, attempts=record.attempts, budget_start=budget_start,
            forced=record.forced, theirs=record.theirs,
            replays=record.remote_op_id if record.accepted else None,
        )  # fmt: skip

    def next_due(self) -> float | None:
        row = self._db.one("SELECT not_before FROM ready ORDER BY not_before LIMIT 1")
        return None if row is None else float(row[0])

    def sealed(self, claim: Claim, body: Body) -> Claim:
        with self._db.transaction():
            draft = claim.op.body.draft if claim.op.body is not None else None
            self._db.run(
                "UPDATE op SET body_size = ?, body_digest = ?, body_draft = ? WHERE body_draft = ?",
                body.size, body.digest, body.draft, draft,
            )  # fmt: skip
            if body.draft is None:
                self._db.run("DELETE FROM draft WHERE draft_id = ?", draft)
            return self._renewed(claim)

    def acknowledge(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> list[OpId]:
        with self._db.transaction():
            record = self._held(claim)
            op = record.op
            self._learn(op, receipt)
            self._note_delivered(op, receipt)
            self._keep_replaced(record)
            superseded = self._supersede(op)
            self._remove(record, Event.ACKNOWLEDGE)
            self._count(
                acknowledged=1,
                bytes_up=0 if op.body is None else op.body.size,
                failed_attempts=_answered_badly(attempt),
            )
            return superseded

    def _learn(self, op: Op, receipt: Receipt) -> None:
        """Passes the acknowledged state of each name on to later ops and open drafts of it, and to its local times.

        ``step`` has done so for a move's new name: by now that may be somebody else's.
        """
        if op.kind is OpKind.RMDIR:
            return
        if op.kind is not OpKind.PUT:
            self._advance(op.path, op.seq, ABSENT)
        if op.kind is not OpKind.DELETE and op.step == 0:
            arrived = _arrived(op, receipt)
            self._advance(op.target, op.seq, arrived)
            self._note_made(op)
            self._keep_mtime(op, arrived)

    def _note_delivered(self, op: Op, receipt: Receipt) -> None:
        if op.kind is OpKind.MOVE:
            self._remember_move(op, receipt)
        elif op.kind is not OpKind.RMDIR:
            self._remember(op.op_id, op.kind, op.path, op, receipt)

    def _note_made(self, op: Op) -> None:
        """A file that was nowhere before is this mount's own, under whatever name it has here by now."""
        if op.step == 0 and op.base.absent and op.target_base.absent:
            self._db.run(
                "UPDATE node SET made_at = ?3 WHERE path = ?1 OR path IN"
                " (SELECT to_path FROM op WHERE path = ?1 AND seq > ?2 AND to_path IS NOT NULL)",
                op.target, op.seq, self._clock.now(),
            )  # fmt: skip

    def _keep_mtime(self, op: Op, arrived: Base) -> None:
        """What programs saw as the file's time holds for what we sent, under whatever name it has here by now."""
        self._db.run(
            "WITH RECURSIVE name (path, seq) AS (VALUES (?2, ?3) UNION SELECT op.to_path, op.seq FROM name"
            " JOIN op ON op.path = name.path AND op.seq > name.seq WHERE op.to_path IS NOT NULL)"
            " UPDATE node SET mtime_revision = ?1 WHERE path IN (SELECT path FROM name)"
            " AND (mtime_revision IS NULL OR mtime_revision = ?4)",
            arrived.revision, op.target, op.seq, op.base.revision,
        )  # fmt: skip

    def _keep_replaced(self, record: Record) -> None:
        """The bytes that a forced op replaced are a discarded record of their own."""
        op, theirs = record.op, record.theirs
        if not record.forced or theirs is None:
            return
        carried = op.kind is OpKind.MOVE and op.step == 0 and op.body is None and op.base == theirs.base
        if not carried:
            self._keep(conflict_name(op), theirs, f"what {op.op_id} replaced when it was forced", op.op_id)

    def _keep_perhaps_replaced(self, record: Record, found: Theirs | None) -> None:
        """A forced op that was claimed before this time may have arrived, its answer lost: what it was to replace may
        be nowhere else by now. ``found`` is what stands there instead.
        """
        theirs, op = record.theirs, record.op
        row = self._row(op.op_id)
        if theirs is None or row is None or row["forced"] <= _CLAIMED_ONCE:
            return
        if found is None or not theirs.base.like(found.base):
            self._keep(conflict_name(op), theirs, f"what {op.op_id} may have replaced when it was forced", op.op_id)

    def _keep(self, path: RemotePath, theirs: Theirs, message: str, by: OpId) -> None:
        if theirs.body is None:
            return
        op = self._draw_up(OpKind.PUT, path, theirs.base, body=theirs.body, content_type=content_type_of(path))
        self._insert(op, not_before=0, burst_at=0, state=State.DISCARDED)
        self._db.run(
            "UPDATE op SET settled_at = ?, message = ?, superseded_by = ? WHERE seq = ?",
            self._clock.now(), message, by, op.seq,
        )  # fmt: skip

    def _advance(self, path: RemotePath, seq: int, base: Base) -> None:
        """What was discarded counts too: it may be redriven, and it was made from what this op leaves behind.

        What was replaced at the remote, or superseded by an op that arrived, is history and keeps its base.
        """
        for name, prefix in (("path", "base"), ("to_path", "to_base")):
            self._db.run(
                f"UPDATE op SET {prefix}_revision = ?, {prefix}_digest = ?"  # noqa: S608 - fixed names
                f" WHERE {name} = ? AND seq > ? AND sound AND (state IN ('pending', 'held', 'dead-letter')"
                " OR state = 'discarded' AND (superseded_by IS NULL OR superseded_by IN (SELECT op_id FROM op)))",
                base.revision, base.digest, path, seq,
            )  # fmt: skip
        self._db.run(
            "UPDATE draft SET base_revision = ?, base_digest = ? WHERE path = ?", base.revision, base.digest, path
        )

    def _supersede(self, op: Op) -> list[OpId]:
        """Older dead puts and deletes of its names are history now; older discarded ones may not come back after it."""
        gone = []
        for path in {op.path, op.target}:
            for name in ("path", "to_path"):
                self._db.run(
                    f"UPDATE op SET superseded_by = ? WHERE {name} = ? AND seq < ? AND state = 'discarded'"  # noqa: S608
                    " AND superseded_by IS NULL",
                    op.op_id, path, op.seq,
                )  # fmt: skip
            for row in self._db.all(
                "SELECT * FROM op WHERE path = ? AND seq < ? AND state = 'dead-letter' AND kind IN ('put', 'delete')"
                " AND sound AND NOT accepted", path, op.seq,
            ):  # fmt: skip
                record = record_of(row)
                theirs = record.theirs
                if theirs is not None and theirs.base.like(op.base_of(path)):
                    self._keep(path, theirs, f"what {op.op_id} replaced", op.op_id)
                self._discard(record, f"superseded by {op.op_id}", event=Event.SUPERSEDE, by=op.op_id)
                gone.append(record.op.op_id)
            gone += self._supersede_accepted(path, op.op_id)
        return gone

    def step(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> Claim:
        with self._db.transaction():
            record = self._held(claim)
            op = record.op
            if attempt.error is not None:
                self._log_attempt(op, attempt, charged=False)
            arrived = _arrived(op, receipt)
            self._note_made(op)
            self._remember_move(op, receipt)
            self._keep_replaced(record)
            self._keep_on_row(record, None)
            self._db.run(
                "UPDATE op SET step = 1, forced = 0, to_base_revision = ?, to_base_digest = ? WHERE seq = ?",
                arrived.revision, arrived.digest, op.seq,
            )  # fmt: skip
            self._advance(op.target, op.seq, arrived)
            self._keep_mtime(op, arrived)
            return self._renewed(claim)

    def postpone(
        self, claim: Claim, until: float, attempt: Attempt | None, *, charged: bool, shared: bool = False
    ) -> None:
        with self._db.transaction():
            record = self._held(claim)
            self._log_attempt(claim.op, attempt, charged=charged, counted=not shared)
            self._move_to(record, Event.POSTPONE, message=_message(attempt, record))
            # A draft is sealed before the first request: while it is not, what was claimed was never attempted.
            begun = attempt is not None or record.op.body is None or record.op.body.draft is None
            self._db.run("UPDATE op SET not_before = ?, attempted = ? WHERE seq = ?", until, int(begun), record.op.seq)

    def rebase(self, claim: Claim, base: Base, attempt: Attempt) -> None:
        with self._db.transaction():
            record = self._held(claim)
            op = record.op
            self._log_attempt(op, attempt, charged=False)
            self._move_to(record, Event.POSTPONE, message=_message(attempt, record))
            self._set_base(op, conflict_name(op), base)
            self._db.run("UPDATE op SET not_before = 0 WHERE seq = ?", op.seq)

    def bury(
        self,
        claim: Claim,
        reason: Reason,
        message: str,
        attempt: Attempt | None,
        *,
        charged: bool,
        theirs: Theirs | None = None,
        at: RemotePath | None = None,
    ) -> None:
        with self._db.transaction():
            record = self._held(claim)
            self._log_attempt(claim.op, attempt, charged=charged)
            self._move_to(record, Event.BURY, reason=reason, message=message)
            self._count(failed_writebacks=1)
            self._give_back(record.op)
            if reason is Reason.CONFLICT:
                self._replace_older_conflicts(record.op)
            if theirs is not None or reason in FORCEABLE:
                self._keep_perhaps_replaced(record, theirs)
                self._keep_on_row(record, theirs)
                self._db.run(
                    "UPDATE op SET forced = 0, theirs_path = ? WHERE seq = ?",
                    at or conflict_name(record.op), record.op.seq,
                )  # fmt: skip

    def keep_theirs(self, claim: Claim, theirs: Theirs) -> Claim:
        with self._db.transaction():
            self._keep_on_row(self._held(claim), theirs)
            return self._renewed(claim)

    def _keep_on_row(self, record: Record, theirs: Theirs | None) -> None:
        """Writes the remote's version; bytes that are held of the same one stay where none come with it."""
        before = record.theirs
        kept = None if theirs is None else theirs.body
        if before is not None and before.body != kept:
            if theirs is not None and kept is None and before.base.revision == theirs.base.revision:
                return
            self._release(before.body)
        base = ABSENT if theirs is None else theirs.base
        self._db.run(
            "UPDATE op SET theirs_revision = ?, theirs_digest = ?, theirs_size = ? WHERE seq = ?",
            base.revision, base.digest if kept is None else kept.digest,
            None if kept is None else kept.size, record.op.seq,
        )  # fmt: skip

    def _replace_older_conflicts(self, op: Op) -> None:
        """One conflict a path is enough to settle: the newest, which has the newest bytes."""
        for row in self._db.all(
            "SELECT * FROM op WHERE path = ? AND seq < ? AND state = 'dead-letter' AND reason = 'conflict'"
            " AND kind = 'put' AND sound",
            op.path, op.seq,
        ):  # fmt: skip
            self._discard(record_of(row), f"replaced by the conflict {op.op_id}", event=Event.SUPERSEDE, by=op.op_id)

    def sent_digests(self, path: RemotePath) -> frozenset[Digest]:
        rows = self._db.all(
            "SELECT body_digest FROM op WHERE path = ?1 AND kind = 'put' AND attempted AND body_draft IS NULL"
            " AND body_digest IS NOT NULL UNION SELECT body_digest FROM op WHERE to_path = ?1 AND attempted"
            " AND body_draft IS NULL AND body_digest IS NOT NULL", path,
        )  # fmt: skip
        return frozenset(Digest(row[0]) for row in rows)

    def _held(self, claim: Claim) -> Record:
        """The claimed op as the journal has it; a claim that was overtaken is an error of the program."""
        row = self._row(claim.op.op_id)
        if row is None or row["state"] != State.SENDING or row["lease"] != claim.lease:
            raise RuntimeError(f"{claim.op.op_id} is not held by lease {claim.lease}")
        return record_of(row)

    def _renewed(self, claim: Claim) -> Claim:
        record = self._held(claim)
        return replace(claim, op=record.op, forced=record.forced, theirs=record.theirs)

    def _log_attempt(self, op: Op, attempt: Attempt | None, *, charged: bool, counted: bool = True) -> None:
        if attempt is None:
            return
        if charged:
            self._db.run("UPDATE op SET attempts = attempts + 1 WHERE op_id = ?", op.op_id)
        self._add_attempt(op.op_id, attempt)
        if counted and _answered_badly(attempt):
            self._count(failed_attempts=1)


def _arrived(op: Op, receipt: Receipt) -> Base:
    """What stands at the op's target now; a receipt that names no digest is for the bytes that were sent."""
    return Base(receipt.revision, receipt.digest or (op.body.digest if op.body is not None else None))


def _answered_badly(attempt: Attempt) -> bool:
    """Whether an HTTP answer came that was not a valid 2xx."""
    return attempt.error is not None and attempt.status != 0


def _message(attempt: Attempt | None, record: Record) -> str:
    return record.message if attempt is None or attempt.error is None else attempt.error
