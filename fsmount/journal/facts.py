"""What the journal tells: single records, lists, counts, and which op decides what a path shows.

Invariant: nothing here changes a row.
"""

from __future__ import annotations

from fsmount import lifecycle
from fsmount.journal.part import Part
from fsmount.journal.rows import attempt_of, record_of
from fsmount.model import (
    Attempt,
    Counts,
    Digest,
    DraftId,
    OpId,
    Record,
    RemotePath,
    State,
    Totals,
    name_of,
    provider_of,
)

KNOWN_STATES = "('pending', 'sending', 'discarded')"


class Facts(Part):
    """Reading."""

    def record(self, op_id: OpId) -> Record | None:
        row = self._row(op_id)
        if row is None:
            return None
        attempts = self._db.all("SELECT * FROM attempt WHERE op_id = ? ORDER BY at", op_id)
        blocker = self._db.one(
            "SELECT op.op_id FROM blocker JOIN op ON op.seq = by_seq WHERE blocker.seq = ? ORDER BY by_seq LIMIT 1",
            row["seq"],
        )
        blocked_by = blocker["op_id"] if blocker is not None and row["state"] == State.PENDING else None
        return record_of(row, history=tuple(attempt_of(found) for found in attempts), blocked_by=blocked_by)

    def records(self, state: State | None = None, *, limit: int | None = None) -> list[Record]:
        """Without history; the newest first. A damaged row, whatever its state says, is among the dead letters."""
        where, values = self._where(state)
        rows = self._db.all(
            f"SELECT * FROM op {where} ORDER BY seq DESC LIMIT ?", *values, -1 if limit is None else limit
        )
        found = [record_of(row) for row in rows]
        if state is None or state is State.DEAD:
            return found
        return [record for record in found if record.malformed is None]

    def op_ids(self, state: State, *, with_body: bool = False) -> list[OpId]:
        """The ids alone, oldest first: cheap for a hundred thousand."""
        where, values = self._where(state)
        if with_body:
            where = f"{where.replace('WHERE ', 'WHERE (')}) AND body_size IS NOT NULL"
        return [OpId(row[0]) for row in self._db.all(f"SELECT op_id FROM op {where} ORDER BY seq", *values)]  # noqa: S608

    def _where(self, state: State | None) -> tuple[str, tuple[str, ...]]:
        if state is None:
            return "", ()
        if state is State.DEAD:
            return f"WHERE state NOT IN {KNOWN_STATES} OR kind NOT IN ('put', 'delete', 'move', 'rmdir')", ()
        return "WHERE state = ?", (state,)

    def counts(self) -> Counts:
        found: dict[str, tuple[int, int, float | None]] = {
            row[0]: (row[1], row[2] or 0, row[3])
            for row in self._db.all("SELECT state, count(*), sum(body_size), min(created_at) FROM op GROUP BY state")
        }
        pending, sending = found.get(State.PENDING, (0, 0, None)), found.get(State.SENDING, (0, 0, None))
        oldest = [at for at in (pending[2], sending[2]) if at is not None]
        return Counts(
            pending=pending[0],
            sending=sending[0],
            blocked=self._blocked(),
            dead=sum(
                count
                for state, (count, _, _) in found.items()
                if state not in (State.PENDING, State.SENDING, State.DISCARDED)
            ),
            discarded=found.get(State.DISCARDED, (0, 0, None))[0],
            bytes=pending[1] + sending[1],
            oldest_at=min(oldest) if oldest else None,
        )

    def _blocked(self) -> int:
        """Pending ops that wait for a dead letter: nothing but a person moves them on."""
        row = self._db.one(
            "SELECT count(DISTINCT blocker.seq) FROM op dead JOIN blocker ON by_seq = dead.seq JOIN op ON op.seq = blocker.seq"
            " WHERE dead.state = 'dead-letter' AND dead.kind = 'move' AND op.state = 'pending'"
        )
        return int(row[0]) if row else 0

    def dead_by_reason(self) -> dict[str, int]:
        rows = self._db.all("SELECT reason, count(*) FROM op WHERE state = 'dead-letter' GROUP BY reason")
        return {str(row[0]): row[1] for row in rows}

    def totals(self) -> Totals:
        return Totals(**{row["name"]: row["value"] for row in self._db.all("SELECT name, value FROM total")})

    def last_errors(self) -> dict[str, tuple[Record, Attempt]]:
        found: dict[str, tuple[Record, Attempt]] = {}
        for row in self._db.all(
            "SELECT attempt.*, op.path, max(at) FROM attempt JOIN op USING (op_id)"
            " WHERE error IS NOT NULL AND state <> 'discarded'"
            " GROUP BY substr(path, 2, instr(substr(path, 2) || '/', '/') - 1)"
        ):
            record = self.record(OpId(row["op_id"]))
            if record is not None:
                found[provider_of(RemotePath(str(row["path"])))] = (record, attempt_of(row))
        return found

    def version(self) -> int:
        return self._db.version

    # what the mount shows

    def shown(self, path: RemotePath) -> Record | None:
        for row in self._db.all(
            "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND own = 1 ORDER BY seq DESC LIMIT 8",
            path,
        ):
            record = record_of(row)
            if record.malformed is None and lifecycle.stands(record):
                return record
        return None

    def shown_below(self, directory: RemotePath) -> dict[str, Record | None]:
        """Names in ``directory`` that ops decide: the newest that does, or None where a put lies deeper, so that a directory is there."""
        found: dict[str, Record | None] = {}
        for row in self._db.all(
            "SELECT DISTINCT path FROM touch WHERE parent = ? AND own = 0 AND target = 1 AND path <> '/'", directory
        ):
            found[name_of(row["path"])] = None
        rows = self._db.all(
            "SELECT op.*, touch.path AS name FROM touch JOIN op USING (seq) WHERE touch.parent = ? AND own = 1 ORDER BY seq",
            directory,
        )
        for row in rows:
            record = record_of(row)
            if record.malformed is None and lifecycle.stands(record):
                found[name_of(row["name"])] = record
        return found

    def implies_directory(self, path: RemotePath) -> bool:
        """Whether an unsent op puts something below ``path``."""
        return self._db.one("SELECT 1 FROM touch WHERE path = ? AND own = 0 AND target = 1 LIMIT 1", path) is not None

    # what the spool must keep

    def bodies(self) -> tuple[list[Digest], list[DraftId]]:
        """Every body and draft that a row refers to."""
        digests = self._db.all(
            "SELECT body_digest FROM op WHERE body_digest IS NOT NULL UNION SELECT theirs_digest FROM op WHERE theirs_size IS NOT NULL"
            " UNION SELECT body_digest FROM node WHERE body_digest IS NOT NULL"
        )
        drafts = self._db.all(
            "SELECT body_draft FROM op WHERE body_draft IS NOT NULL UNION SELECT draft_id FROM draft"
            " UNION SELECT body_draft FROM node WHERE body_draft IS NOT NULL"
        )
        return [Digest(row[0]) for row in digests], [DraftId(row[0]) for row in drafts]
