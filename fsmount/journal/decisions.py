"""What a person decides about an op: let it go, try it again, let it win, give it up, forget it.

Invariant: every decision is in the journal when the call returns, and old bytes never go after newer ones.
"""

from __future__ import annotations

import errno
import json

from msgspec.structs import replace

from fsmount import lifecycle
from fsmount.errors import VerbRefused
from fsmount.journal.brake import Brake
from fsmount.journal.part import FORCEABLE, conflict_name, names_to_decide
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event, IllegalTransition
from fsmount.model import ABSENT, NOT_OVERLAID, Base, Op, OpId, OpKind, Reason, Record, RemotePath, State, ancestors


class Decisions(Brake):
    """Each verb raises VerbRefused with the errno that its rename gets."""

    def retry(self, op_id: OpId) -> None:
        with self._db.transaction():
            record = self._decided(op_id, Event.RETRY)
            if record.state is State.HELD:
                self._let_go(record)
                self._decided_on_held()
            else:
                _must_bring_something(record.op, record.op.base)
                self._redrive(record)

    def _redrive(self, record: Record) -> Op:
        op = record.op
        in_place = self._bars(record)
        if record.superseded_by is not None or (self._has_newer(record) and not in_place):
            raise VerbRefused(
                errno.EBUSY,
                f"{op.op_id} is older than another op on {op.path};"
                f" to bring its bytes back, copy content/{op.op_id} to the file",
            )
        if record.accepted:
            self._must_be_replayable(record)
        self._db.run("UPDATE op SET redrives = redrives + 1, released = 1 WHERE seq = ?", op.seq)
        return self._again(record, op.seq) if in_place else self._to_the_end(record)

    def _bars(self, record: Record) -> bool:
        """Whether all newer ops of its names wait for this dead letter: tried again in its place, it goes first."""
        return (
            record.state is State.DEAD
            and lifecycle.blocks_when_dead(record.op)
            and record.reason not in NOT_OVERLAID
            and self._has_newer(record)
        )

    def _to_the_end(self, record: Record) -> Op:
        """A settled op is pending again, behind all others."""
        return self._again(record, self._next_seq())

    def _again(self, record: Record, seq: int) -> Op:
        """A settled op is pending again, in the place ``seq`` of the order, with a new budget."""
        op = replace(record.op, seq=seq)
        self._untouch(record.op)
        self._db.run(
            "UPDATE op SET seq = ?, state = ?, budget_start = attempts, reason = NULL, not_before = 0,"
            " settled_at = NULL, superseded_by = NULL, message = '' WHERE op_id = ?",
            op.seq, lifecycle.after(record.state, Event.RETRY), op.op_id,
        )  # fmt: skip
        if record.accepted:
            return op
        self._touch(op)
        if op.kind is OpKind.DELETE:
            self._put_aside(op.path, op.op_id)
        return op

    def _must_be_replayable(self, record: Record) -> None:
        """What the remote took is tried again there, not sent; raises VerbRefused where that cannot be asked for."""
        op = record.op
        if record.remote_op_id is None:
            raise VerbRefused(errno.EPERM, f"{op.op_id}: the remote's own operation is not known; save {op.path} again")
        if self._newest(op.path) is not None:
            raise VerbRefused(errno.EBUSY, f"{op.op_id} is older than another op on {op.path}, which is to be sent")

    def force(self, op_id: OpId) -> None:
        with self._db.transaction():
            record = self._found(op_id)
            if record.state is not State.DEAD or record.reason not in FORCEABLE:
                raise VerbRefused(
                    errno.EPERM, f"{op_id}: only a conflict or what was deleted on the remote can be forced"
                )
            path = self._conflict_path(record)
            base = ABSENT if record.theirs is None else record.theirs.base
            if record.reason is Reason.REMOTE_DELETED:
                base = ABSENT
            _must_bring_something(record.op, base if path == record.op.path else record.op.base)
            self._set_base(self._redrive(record), path, base)
            self._db.run("UPDATE op SET forced = 1 WHERE op_id = ?", op_id)

    def accept_theirs(self, path: RemotePath) -> bool:
        with self._db.transaction():
            for row in self._db.all(
                "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND state = 'dead-letter'"
                " AND reason = 'conflict' AND sound ORDER BY touch.seq DESC",
                path,
            ):
                record = record_of(row)
                if record.theirs is not None and self._conflict_path(record) == path:
                    self._accept(record, path, record.theirs.base)
                    return True
        return False

    def _accept(self, conflict: Record, path: RemotePath, base: Base) -> None:
        """The conflict is what later changes inherit from; one that waits already is what they become part of."""
        self._set_base(conflict.op, path, base)
        newest = self._newest(path)
        if newest is not None and lifecycle.may_change(newest) and newest.op.target == path:
            self._set_base(newest.op, path, base)

    def discard(self, op_id: OpId) -> None:
        with self._db.transaction():
            record = self._decided(op_id, Event.DISCARD)
            if record.open:
                raise VerbRefused(
                    errno.EBUSY, f"{op_id}: a program still has {record.op.target} open for writing; close it first"
                )
            if self._needs(record):
                raise VerbRefused(
                    errno.EBUSY, f"{op_id}: other ops wait for this {record.op.kind}; discard those first"
                )
            self._discard(record, "given up by a person")
            self._bring_back(record)
            if record.state is State.HELD:
                self._decided_on_held()

    def _bring_back(self, record: Record) -> None:
        """What a removal had given up unsent is pending again, and held rmdirs do not hide the file."""
        op = record.op
        if record.accepted:
            return
        if op.kind in (OpKind.DELETE, OpKind.MOVE):
            for row in self._db.all(
                "SELECT op.* FROM op JOIN touch USING (seq) WHERE kind = 'rmdir' AND state = 'held' AND sound"
                " AND seq > ? AND touch.path IN (SELECT value FROM json_each(?))",
                op.seq, json.dumps(ancestors(op.path)),
            ):  # fmt: skip
                self._untouch(record_of(row).op)
        if op.kind is not OpKind.DELETE:
            return
        self._give_back(op)
        for row in self._db.all(
            "SELECT * FROM op WHERE superseded_by = ? AND state = 'discarded' AND attempted = 0"
            " AND body_size IS NOT NULL AND sound ORDER BY seq DESC LIMIT 1",
            op.op_id,
        ):
            given_up = record_of(row)
            if not self._has_newer(given_up):
                self._to_the_end(given_up)

    def purge(self, op_id: OpId) -> None:
        with self._db.transaction():
            self._remove(self._decided(op_id, Event.PURGE), Event.PURGE)

    def purge_discarded(self, before: float) -> int:
        """Forgets what was discarded before ``before`` (epoch seconds); how many."""
        with self._db.transaction():
            old = self._db.all("SELECT * FROM op WHERE state = 'discarded' AND settled_at < ? AND sound", before)
            for row in old:
                self._remove(record_of(row), Event.PURGE)
            return len(old)

    def follow_clock(self, seconds: float, since: float) -> None:
        """The wall clock was set forward by so much: what is discarded has not become older by it.

        What was discarded since ``since``, by the clock as it is now, was so when it had been set already.
        """
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET settled_at = settled_at + ? WHERE state = 'discarded'"
                " AND settled_at NOT BETWEEN ? AND ?",
                seconds, since, self._clock.now(),
            )  # fmt: skip

    def trim_discarded(self, limit: int) -> int:
        row = self._db.one("SELECT total(body_size) FROM op WHERE state = 'discarded'")
        excess = (0 if row is None else int(row[0])) - limit
        if excess <= 0:
            return 0
        with self._db.transaction():
            return self._trim(excess)

    def _trim(self, excess: int) -> int:
        """What an op that is not settled yet has superseded may still be wanted."""
        gone = 0
        for row in self._db.run(
            "SELECT * FROM op WHERE state = 'discarded' AND superseded_by IS NOT NULL AND body_size > 0 AND sound"
            " AND NOT EXISTS (SELECT 1 FROM op AS by WHERE by.op_id = op.superseded_by AND by.state <> 'discarded')"
            " ORDER BY settled_at, seq"
        ).fetchall():
            if excess <= 0:
                break
            self._remove(record_of(row), Event.PURGE)
            excess -= row["body_size"]
            gone += 1
        return gone

    def keep_setting(self, name: str, value: str | None) -> None:
        with self._db.transaction():
            if value is None:
                self._db.run("DELETE FROM setting WHERE name = ?", name)
            else:
                self._db.run("INSERT OR REPLACE INTO setting (name, value) VALUES (?,?)", name, value)

    # what may be decided

    def _found(self, op_id: OpId) -> Record:
        row = self._row(op_id)
        if row is None:
            raise VerbRefused(errno.ENOENT, f"{op_id} is gone: it was delivered, or never was")
        record = record_of(row)
        if record.malformed is not None:
            raise VerbRefused(errno.EBUSY, f"{op_id} is damaged and is kept as it is: {record.message}")
        if record.state is State.SENDING:
            raise VerbRefused(errno.EBUSY, f"{op_id} is being sent")
        return record

    def _decided(self, op_id: OpId, event: Event) -> Record:
        record = self._found(op_id)
        try:
            lifecycle.after(record.state, event)
        except IllegalTransition as error:
            raise VerbRefused(errno.EPERM, f"{op_id}: {error}") from error
        return record

    def _conflict_path(self, record: Record) -> RemotePath:
        """Which of the op's names the remote holds otherwise."""
        row = self._db.one("SELECT theirs_path FROM op WHERE seq = ?", record.op.seq)
        return conflict_name(record.op) if row is None or row[0] is None else RemotePath(row[0])

    def _has_newer(self, record: Record) -> bool:
        return any(self._later(path, record.op.seq) for path in names_to_decide(record.op))


def _must_bring_something(op: Op, base: Base) -> None:
    """A move without bytes of its own needs those at its old name."""
    if op.kind is OpKind.MOVE and op.step == 0 and op.body is None and base.absent:
        raise VerbRefused(errno.EPERM, f"{op.op_id}: nothing is left to send, {op.path} is gone on the remote")
