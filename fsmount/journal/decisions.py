"""What a person decides about an op: try it again, give it up.

Invariant: every decision is in the journal when the call returns, and old bytes never go after newer ones.
"""

from __future__ import annotations

import errno

from msgspec.structs import replace

from fsmount import lifecycle
from fsmount.errors import VerbRefused
from fsmount.journal.part import Part
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event, IllegalTransition
from fsmount.model import OpId, Record, State


class Decisions(Part):
    """Retry and discard; each raises VerbRefused with the errno that the verb's rename gets."""

    def retry(self, op_id: OpId) -> None:
        with self._db.transaction():
            record = self._decided(op_id, Event.RETRY)
            if record.superseded_by is not None or self._has_newer(record):
                raise VerbRefused(
                    errno.EBUSY,
                    f"{op_id} is older than another op on {record.op.path};"
                    f" to bring its bytes back, copy content/{op_id} to the file",
                )
            op = replace(record.op, seq=self._next_seq())
            self._untouch(record.op)
            self._db.run(
                "UPDATE op SET seq = ?, state = ?, budget_start = attempts, redrives = redrives + 1, reason = NULL,"
                " not_before = 0, settled_at = NULL, message = '' WHERE op_id = ?",
                op.seq, lifecycle.after(record.state, Event.RETRY), op_id,
            )  # fmt: skip
            self._touch(op)

    def discard(self, op_id: OpId) -> None:
        with self._db.transaction():
            record = self._decided(op_id, Event.DISCARD)
            if record.open:
                raise VerbRefused(
                    errno.EBUSY, f"{op_id}: a program still has {record.op.target} open for writing; close it first"
                )
            if lifecycle.blocks_when_dead(record.op) and self._waiting_for(record):
                raise VerbRefused(
                    errno.EBUSY, f"{op_id}: other ops wait for this {record.op.kind}; discard those first"
                )
            self._discard(record, "given up by a person")

    def _decided(self, op_id: OpId, event: Event) -> Record:
        row = self._row(op_id)
        if row is None:
            raise VerbRefused(errno.ENOENT, f"{op_id} is gone: it was delivered, or never was")
        record = record_of(row)
        if record.malformed is not None:
            raise VerbRefused(errno.EBUSY, f"{op_id} is damaged and is kept as it is: {record.message}")
        if record.state is State.SENDING:
            raise VerbRefused(errno.EBUSY, f"{op_id} is being sent")
        try:
            lifecycle.after(record.state, event)
        except IllegalTransition as error:
            raise VerbRefused(errno.EPERM, f"{op_id}: {error}") from error
        return record

    def _has_newer(self, record: Record) -> bool:
        return any(self._later(path, record.op.seq) for path in {record.op.path, record.op.target})

    def purge_discarded(self, before: float) -> int:
        """Forgets what was discarded before ``before`` (epoch seconds); how many."""
        with self._db.transaction():
            old = self._db.all("SELECT * FROM op WHERE state = 'discarded' AND settled_at < ? AND sound", before)
            for row in old:
                self._remove(record_of(row), Event.PURGE)
            return len(old)
