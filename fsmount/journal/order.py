"""Who waits for whom: on the same name, above or below it.

Invariant: an op waits only for ops before it in the order, so nobody waits in a circle. What only a person moves on, a
dead move or a held op, is a barrier: everything behind it is blocked, itself or through others that wait.
"""

from __future__ import annotations

import json
import sqlite3

from fsmount import lifecycle
from fsmount.journal.part import Part
from fsmount.journal.rows import record_of
from fsmount.model import OpId, OpKind, Record, RemotePath, State, ancestors

NOT_DAMAGED = "seq NOT IN (SELECT seq FROM op WHERE sound = 0)"
"""Asks an index that is empty as a rule; ``sound`` itself would be reckoned for every row."""
_DEAD_MOVES = (
    "SELECT * FROM op WHERE state = 'dead-letter' AND kind = 'move' AND sound"
    " AND reason NOT IN ('interrupted', 'corrupt-spool')"
)
_BEHIND_HELD = f"""
    SELECT later.seq FROM op CROSS JOIN touch ON touch.path IN (op.path, op.to_path) AND touch.seq = op.seq
        CROSS JOIN touch later ON later.path >= touch.path AND later.path < touch.path || '0'
    WHERE op.state = 'held' AND op.{NOT_DAMAGED}
        AND later.seq > touch.seq AND (later.path = touch.path OR later.path > touch.path || '/')"""  # noqa: S608 - fixed conditions
"""What waits on or below the names of held ops."""


class Order(Part):
    """Looking forward and backward along the order."""

    def _is_braking(self) -> bool:
        """Whether the brake is on: from the first op that it holds to the last one that a person decides on."""
        return self._db.one(f"SELECT 1 FROM op WHERE state = 'held' AND {NOT_DAMAGED} LIMIT 1") is not None  # noqa: S608

    def _barrier(self, seq: int, *states: State) -> OpId | None:
        """The barrier that the op waits for, itself or through others; only those in one of ``states``."""
        if not self._any_barrier(states):
            return None
        seen, waiting = {seq}, [seq]
        while waiting:
            for row in self._before(waiting.pop()):
                if row["state"] in states:
                    return OpId(row["op_id"])
                if row["seq"] not in seen:
                    seen.add(row["seq"])
                    waiting.append(row["seq"])
        return None

    def _any_barrier(self, states: tuple[State, ...]) -> bool:
        held = State.HELD in states and self._is_braking()
        return held or (State.DEAD in states and self._db.one(f"{_DEAD_MOVES} LIMIT 1") is not None)

    def _before(self, seq: int) -> list[sqlite3.Row]:
        """The ops that the op waits for directly, held ones first."""
        return self._db.all(
            "SELECT op.seq, op.op_id, op.state FROM blocker JOIN op ON op.seq = by_seq WHERE blocker.seq = ?"
            " ORDER BY op.state <> 'held', op.seq", seq,
        )  # fmt: skip

    def _waiting_for(self, record: Record) -> set[int]:
        """The numbers of the pending and held ops that wait for this one directly: the view ``blocker`` backwards."""
        op = record.op
        other = op.path if record.state is State.DEAD and op.step else op.target
        above = [] if record.state is State.DEAD else [*ancestors(op.path), *ancestors(other)]
        related = self._db.all(
            "SELECT op.seq FROM touch JOIN op USING (seq) WHERE op.seq > ?1 AND state IN ('pending', 'held') AND sound"
            " AND (touch.path IN (?2, ?3) OR touch.path > ?2 || '/' AND touch.path < ?2 || '0'"
            " OR touch.path > ?3 || '/' AND touch.path < ?3 || '0'"
            " OR touch.path IN (SELECT value FROM json_each(?4)))",
            op.seq, op.path, other, json.dumps(above),
        )  # fmt: skip
        return {row[0] for row in related}

    def _at(self, seqs: set[int]) -> list[Record]:
        rows = (self._db.one("SELECT * FROM op WHERE seq = ?", seq) for seq in sorted(seqs))
        return [record_of(row) for row in rows if row is not None]

    def _blocked(self) -> int:
        """How many pending ops are behind a barrier."""
        if self._db.one("SELECT 1 FROM op WHERE state = 'pending' LIMIT 1") is None:
            return 0
        found = self._behind_held()
        for row in self._db.all(_DEAD_MOVES):
            found |= self._pending(self._waiting_for(record_of(row)))
        waiting = self._at(found)
        while waiting:
            new = self._pending(self._waiting_for(waiting.pop())) - found
            found |= new
            waiting += self._at(new)
        return len(found)

    def _behind_held(self) -> set[int]:
        """The pending ops that wait directly for a held one; in a few statements, for ten thousand may be held."""
        if not self._is_braking():
            return set()
        found = {row[0] for row in self._db.all(_BEHIND_HELD)}
        oldest: dict[str, int] = {}
        for parent, seq in self._db.all(
            "SELECT touch.parent, min(op.seq) FROM op CROSS JOIN touch ON touch.path IN (op.path, op.to_path)"  # noqa: S608
            f" AND touch.seq = op.seq WHERE state = 'held' AND op.{NOT_DAMAGED} GROUP BY touch.parent"
        ):
            for path in (parent, *ancestors(RemotePath(parent))):
                oldest[path] = min(seq, oldest.get(path, seq))
        for path, seq in oldest.items():
            found |= {row[0] for row in self._db.all("SELECT seq FROM touch WHERE path = ? AND seq > ?", path, seq)}
        return self._pending(found)

    def _pending(self, seqs: set[int]) -> set[int]:
        rows = self._db.all(
            "SELECT seq FROM op WHERE seq IN (SELECT value FROM json_each(?)) AND state = 'pending' AND sound",
            json.dumps(sorted(seqs)),
        )
        return {row[0] for row in rows}

    def _needs(self, record: Record) -> bool:
        """Whether giving the op up would leave others without what they build on; a held rmdir builds on nothing."""
        if not lifecycle.blocks_when_dead(record.op):
            return False
        return any(
            other.op.kind is not OpKind.RMDIR or other.state is not State.HELD
            for other in self._at(self._waiting_for(record))
        )
