"""What the journal tells: single records, lists, counts, and which op decides what a path shows.

Invariant: nothing here changes a row. A damaged row, whatever its state says, is among the dead letters.
"""

from __future__ import annotations

from collections.abc import Collection

from fsmount import lifecycle
from fsmount.journal.order import NOT_DAMAGED, Order
from fsmount.journal.rows import attempt_of, op_of, record_of
from fsmount.model import (
    Attempt,
    Base,
    Counts,
    Digest,
    DraftId,
    Op,
    OpId,
    Reason,
    Record,
    RemotePath,
    State,
    Totals,
    join,
    name_of,
    provider_of,
)  # fmt: skip

_OF_STATE = {
    None: "",
    State.PENDING: f"WHERE state = 'pending' AND {NOT_DAMAGED}",
    State.HELD: f"WHERE state = 'held' AND {NOT_DAMAGED}",
    State.SENDING: f"WHERE state = 'sending' AND {NOT_DAMAGED}",
    State.DEAD: "WHERE seq IN (SELECT seq FROM op WHERE state = 'dead-letter' UNION"
    " SELECT seq FROM op WHERE sound = 0)",
    State.DISCARDED: f"WHERE state = 'discarded' AND {NOT_DAMAGED}",
}
# What is being sent is no longer there for programs that have removed or moved it meanwhile.
_NEWEST = (
    "NOT EXISTS (SELECT 1 FROM touch later JOIN op since ON since.seq = later.seq WHERE later.path = touch.path"
    " AND later.seq > touch.seq AND (later.target = 1 OR since.state <> 'dead-letter'))"
)


class Facts(Order):
    """Reading."""

    def record(self, op_id: OpId) -> Record | None:
        row = self._row(op_id)
        if row is None:
            return None
        attempts = self._db.all("SELECT * FROM attempt WHERE op_id = ? ORDER BY rowid", op_id)
        blocked_by = self._barrier(row["seq"], State.HELD, State.DEAD) if row["state"] == State.PENDING else None
        return record_of(row, history=tuple(attempt_of(found) for found in attempts), blocked_by=blocked_by)

    def records(self, state: State | None = None, *, limit: int | None = None) -> list[Record]:
        """Without history; the newest first."""
        rows = self._db.all(
            f"SELECT * FROM op {_OF_STATE[state]} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - fixed conditions
            -1 if limit is None else limit,
        )
        return [record_of(row) for row in rows]

    def op_ids(self, state: State, *, with_body: bool = False, reasons: Collection[Reason] = ()) -> list[OpId]:
        """The ids alone, oldest first: cheap for a hundred thousand."""
        also = " AND body_size IS NOT NULL" if with_body else ""
        also += f" AND sound AND reason IN ({', '.join('?' * len(reasons))})" if reasons else ""
        rows = self._db.all(f"SELECT op_id FROM op {_OF_STATE[state]}{also} ORDER BY seq", *reasons)  # noqa: S608
        return [OpId(row[0]) for row in rows]

    def counts(self) -> Counts:
        pending, sending = self._tally(State.PENDING), self._tally(State.SENDING)
        oldest = [at for at in (pending[2], sending[2]) if at is not None]
        return Counts(
            pending=pending[0],
            sending=sending[0],
            blocked=self._blocked(),
            held=self._tally(State.HELD)[0],
            local=self._local(),
            dead=self._tally(State.DEAD)[0],
            discarded=self._tally(State.DISCARDED)[0],
            bytes=pending[1] + sending[1],
            oldest_at=min(oldest) if oldest else None,
        )

    def _local(self) -> int:
        """How many names have something that only this mount keeps."""
        row = self._db.one(
            "SELECT count(*) FROM (SELECT path FROM node WHERE kind IS NOT NULL OR mode IS NOT NULL"
            " OR uid IS NOT NULL OR gid IS NOT NULL UNION SELECT path FROM xattr) WHERE path >= '/' AND path < '0'"
        )
        return int(row[0]) if row else 0

    def _tally(self, state: State) -> tuple[int, int, float | None]:
        """How many, how many bytes, since when."""
        row = self._db.one(f"SELECT count(*), total(body_size), min(created_at) FROM op {_OF_STATE[state]}")  # noqa: S608
        return (0, 0, None) if row is None else (row[0], int(row[1]), row[2])

    def dead_by_reason(self) -> dict[str, int]:
        rows = self._db.all("SELECT reason, count(*) FROM op WHERE state = 'dead-letter' AND sound GROUP BY reason")
        return {str(row[0]): row[1] for row in rows}

    def setting(self, name: str) -> str | None:
        row = self._db.one("SELECT value FROM setting WHERE name = ?", name)
        return None if row is None else str(row[0])

    def rows(self) -> int:
        """How many ops, local nodes and extended attributes there are: what belongs to one remote and no other."""
        row = self._db.one(
            "SELECT (SELECT count(*) FROM op) + (SELECT count(*) FROM node) + (SELECT count(*) FROM xattr)"
        )
        return int(row[0]) if row else 0

    def totals(self) -> Totals:
        row = self._db.one("SELECT * FROM total")
        return Totals() if row is None else Totals(**{name: row[name] for name in row.keys()})  # noqa: SIM118

    def last_errors(self) -> dict[str, tuple[Record, Attempt]]:
        found: dict[str, tuple[Record, Attempt]] = {}
        for row in self._db.all(
            "SELECT attempt.*, op.path, max(attempt.rowid) FROM attempt JOIN op USING (op_id)"
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
        for row in self._db.run(
            "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND sound ORDER BY touch.seq DESC", path
        ):
            record = record_of(row)
            if lifecycle.stands(record):
                return record
        return None

    def origin(self, move: Op) -> tuple[RemotePath, Base]:
        """Where the remote holds the bytes of a move that brings none, until the moves before it have arrived."""
        while move.step == 0:
            row = self._db.one(
                "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ? AND touch.seq < ? AND target = 1"
                " AND kind = 'move' AND body_size IS NULL AND sound ORDER BY touch.seq DESC LIMIT 1",
                move.path, move.seq,
            )  # fmt: skip
            if row is None:
                return move.path, move.base
            move = op_of(row)
        return move.target, move.target_base

    def shown_below(self, directory: RemotePath) -> dict[str, Record | None]:
        """Names in ``directory`` that ops decide, each with the newest that does.

        None where only a put lies deeper, so that a directory is there.
        """
        found: dict[str, Record | None] = dict.fromkeys(self._implied_in(directory))
        rows = self._db.all(
            "SELECT op.*, touch.path AS name FROM touch JOIN op USING (seq)"
            " WHERE target IN (0, 1) AND touch.parent = ? AND sound ORDER BY touch.seq",
            directory,
        )
        for row in rows:
            record = record_of(row)
            if lifecycle.stands(record):
                found[name_of(row["name"])] = record
        return found

    def _implied_in(self, directory: RemotePath) -> set[str]:
        """The names in ``directory`` below which an op puts a file; a look a name, however many ops there are."""
        prefix = join(directory, "")
        found: set[str] = set()
        position: str = prefix
        while True:
            row = self._db.one(
                "SELECT touch.parent FROM touch JOIN op USING (seq) WHERE target = 1 AND touch.parent > ?"  # noqa: S608
                f" AND touch.parent < ? AND sound AND {_NEWEST} ORDER BY touch.parent LIMIT 1",
                position, prefix[:-1] + "0",
            )  # fmt: skip
            if row is None:
                return found
            name = row["parent"][len(prefix) :].partition("/")[0]
            found.add(name)
            # "a-b" sorts between "a" and "a/c": only what is truly below "a" may be leapt over.
            position = row["parent"] if row["parent"] == prefix + name else f"{prefix}{name}/\U0010ffff"

    def implies_directory(self, path: RemotePath) -> bool:
        """Whether an unsettled op puts something below ``path``."""
        row = self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path > ? AND touch.path < ? AND target = 1"  # noqa: S608
            f" AND sound AND {_NEWEST} LIMIT 1",
            join(path, ""), join(path, "")[:-1] + "0",
        )  # fmt: skip
        return row is not None

    def takes_from(self, directory: RemotePath) -> bool:
        """Whether an unsettled op removes or moves away something below ``directory``."""
        row = self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path > ? AND touch.path < ? AND target = 0"
            " AND sound LIMIT 1",
            join(directory, ""), join(directory, "")[:-1] + "0",
        )  # fmt: skip
        return row is not None

    # what the spool must keep

    def discarded_bytes(self) -> int:
        """The size of the bodies that only discarded ops refer to."""
        row = self._db.one(
            "SELECT total(size) FROM (SELECT max(body_size) AS size FROM op WHERE state = 'discarded'"
            " AND body_digest IS NOT NULL AND body_draft IS NULL AND NOT EXISTS (SELECT 1 FROM op other"
            " WHERE other.body_digest = op.body_digest AND other.body_draft IS NULL AND other.state <> 'discarded')"
            " GROUP BY body_digest)"
        )
        return 0 if row is None else int(row[0])

    def bodies(self) -> tuple[list[Digest], list[DraftId]]:
        """Every body and draft that a row refers to."""
        digests = self._db.all(
            "SELECT body_digest FROM op WHERE body_digest IS NOT NULL"
            " UNION SELECT theirs_digest FROM op WHERE theirs_size IS NOT NULL AND theirs_digest IS NOT NULL"
            " UNION SELECT body_digest FROM node WHERE body_digest IS NOT NULL"
        )
        drafts = self._db.all(
            "SELECT body_draft FROM op WHERE body_draft IS NOT NULL UNION SELECT draft_id FROM draft"
            " UNION SELECT body_draft FROM node WHERE body_draft IS NOT NULL"
        )
        return [Digest(row[0]) for row in digests], [DraftId(row[0]) for row in drafts]
