"""The mass-delete brake: too many deletes within a minute wait for a person.

Invariant: what is being sent is never held, and neither is what a person has released. The brake is on while any op is
held, so a restart does not end it; the minute that it counts is this daemon's own.
"""

from __future__ import annotations

from collections import OrderedDict

from fsmount import lifecycle
from fsmount.journal.database import Database
from fsmount.journal.order import Order
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event
from fsmount.model import Op, OpId, OpKind, Record, State, Timing
from fsmount.ports import Clock

WINDOW = 60.0
"""Seconds within which deletes are counted."""
YOUNG = 3600.0
"""Seconds for which a file that this mount made may go without being counted."""


class Brake(Order):
    """Counts deletes, holds them and what is behind them."""

    def __init__(self, database: Database, clock: Clock, timing: Timing) -> None:
        super().__init__(database, clock, timing)
        self._counted: OrderedDict[OpId, float] = OrderedDict()
        """When each delete of the last minute was queued, monotonic; those that are delivered too."""

    def _is_young(self, made_at: float | None) -> bool:
        return made_at is not None and 0 <= self._clock.now() - made_at < YOUNG

    def _brake(self, deletes: list[OpId], limit: int) -> None:
        """Counts new deletes; holds them, and the others of this minute, where they are more than ``limit``."""
        if self._is_braking():
            self._hold(deletes, "deletes are held until a person decides")
            return
        now = self._clock.monotonic()
        while self._counted and now - next(iter(self._counted.values())) >= WINDOW:
            self._counted.popitem(last=False)
        self._counted.update(dict.fromkeys(deletes, now))
        if len(self._counted) > limit:
            self._hold(
                list(self._counted),
                f"more than {limit} deletes within a minute (--max-deletes, or half of what is known)",
            )

    def _hold(self, deletes: list[OpId], why: str) -> None:
        held = []
        for op_id in deletes:
            row = self._row(op_id)
            if row is not None and row["state"] == State.PENDING and not row["released"]:
                held.append(self._held_back(record_of(row), why))
        seen: set[int] = set()
        while held:
            record = held.pop()
            if record.op.seq == self._seq:
                continue
            new = self._waiting_for(record) - seen
            seen |= new
            held += [self._held_with(later, record.op) for later in self._at(new) if later.state is State.PENDING]

    def _held_with(self, record: Record, before: Op) -> Record:
        """Puts and uncounted deletes wait where they are; what they hold up in turn is held."""
        if record.op.kind in (OpKind.PUT, OpKind.DELETE) or self._is_released(record.op.op_id):
            return record
        return self._held_back(record, f"waits for {before.op_id}, which is held")

    def _hold_if_behind(self, op: Op) -> None:
        """A new rmdir or move is held if what it waits for is."""
        before = self._barrier(op.seq, State.HELD)
        if before is not None:
            self._held_back(Record(op=op, state=State.PENDING), f"waits for {before}, which is held")

    def _held_back(self, record: Record, why: str) -> Record:
        self._db.run(
            "UPDATE op SET state = ?, message = ? WHERE seq = ?",
            lifecycle.after(record.state, Event.HOLD), why, record.op.seq,
        )  # fmt: skip
        return record

    def _is_released(self, op_id: OpId) -> bool:
        row = self._row(op_id)
        return row is not None and bool(row["released"])

    def _let_go(self, record: Record) -> None:
        """The held op is pending, in its old place, and the brake has no say in it any more."""
        self._counted.pop(record.op.op_id, None)
        self._untouch(record.op)
        self._touch(record.op)
        self._db.run(
            "UPDATE op SET state = ?, released = 1, message = '', not_before = 0 WHERE seq = ?",
            lifecycle.after(record.state, Event.RETRY), record.op.seq,
        )  # fmt: skip

    def _decided_on_held(self) -> None:
        """A person decided on what was held: with the last of it the count begins anew."""
        if not self._is_braking():
            self._counted.clear()
