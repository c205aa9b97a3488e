"""The remote gave a file another name by itself: what is unsent of it, and what only this mount keeps, goes along.

Invariant: nothing is sent for it, and no op loses its place in the order. An op that was made from the version that was
renamed is made from the renamed one now; one that was made from another version keeps its base, and so meets what
stands there as a conflict.
"""

from __future__ import annotations

from msgspec.structs import replace

from fsmount.journal.decisions import Decisions
from fsmount.journal.rows import record_of
from fsmount.model import DOUBTED, Base, Op, Reason, Record, RemotePath, State, parent_of


class RemoteRenames(Decisions):
    """Re-addresses ops, drafts and local attributes."""

    def renamed_there(self, old: RemotePath, new: RemotePath, before: Base, now: Base) -> None:
        with self._db.transaction():
            for row in self._db.all(
                "SELECT * FROM op WHERE (path = ?1 OR to_path = ?1) AND kind <> 'rmdir' AND NOT accepted AND sound"
                " AND state IN ('pending', 'held', 'dead-letter') ORDER BY seq",
                old,
            ):
                self._address_anew(record_of(row), old, new, before, now)
            self._carry_draft(old, new, before, now)
            self._carry_attributes(old, new, now)

    def doubt_bases(self, path: RemotePath | None = None) -> int:
        with self._db.transaction():
            doubted = [
                self._db.run(
                    f"UPDATE op SET {prefix}_revision = ?1 WHERE {prefix}_revision IS NOT NULL AND sound"  # noqa: S608
                    " AND state IN ('pending', 'held', 'dead-letter') AND NOT accepted"
                    " AND (?2 IS NULL OR path = ?2 OR to_path = ?2)",
                    DOUBTED, path,
                ).rowcount
                for prefix in ("base", "to_base", "theirs")
            ]  # fmt: skip
            self._db.run(
                "UPDATE draft SET base_revision = ?1 WHERE base_revision IS NOT NULL AND (?2 IS NULL OR path = ?2)",
                DOUBTED, path,
            )  # fmt: skip
            return max(doubted)

    def _address_anew(self, record: Record, old: RemotePath, new: RemotePath, before: Base, now: Base) -> None:
        op = record.op
        followed = op.base_of(old).like(before)
        moved = _named(op, old, new)
        decides = self._db.one("SELECT 1 FROM touch WHERE path = ? AND seq = ?", old, op.seq) is not None
        self._untouch(op)
        self._db.run("UPDATE op SET path = ?, to_path = ? WHERE seq = ?", moved.path, moved.to_path, op.seq)
        self._db.run("UPDATE op SET theirs_path = ? WHERE seq = ? AND theirs_path = ?", new, op.seq, old)
        if decides:
            self._touch(moved)
        if followed:
            self._set_base(moved, new, now)
        missed = record.state is State.DEAD and record.reason is Reason.REMOTE_DELETED
        if missed and followed and not self._has_newer(replace(record, op=moved)):
            self._to_the_end(replace(record, op=moved))

    def _carry_draft(self, old: RemotePath, new: RemotePath, before: Base, now: Base) -> None:
        for row in self._db.all("SELECT draft_id, base_revision, base_digest FROM draft WHERE path = ?", old):
            base = Base(row["base_revision"], row["base_digest"])
            kept = now if base.like(before) else base
            self._db.run(
                "UPDATE draft SET path = ?, base_revision = ?, base_digest = ? WHERE draft_id = ?",
                new, kept.revision, kept.digest, row["draft_id"],
            )  # fmt: skip

    def _carry_attributes(self, old: RemotePath, new: RemotePath, now: Base) -> None:
        """Of a file that stands there; its time is what programs saw until somebody else changes it."""
        if self._db.one("SELECT 1 FROM node WHERE path = ? AND kind IS NULL", old) is not None:
            self._forget_node(new)
            self._db.run(
                "UPDATE node SET path = ?, parent = ?, mtime_revision = CASE WHEN mtime_revision IS NULL THEN NULL"
                " ELSE ? END WHERE path = ?",
                new, parent_of(new), now.revision, old,
            )  # fmt: skip
        self._db.run("UPDATE OR REPLACE xattr SET path = ? WHERE path = ?", new, old)


def _named(op: Op, old: RemotePath, new: RemotePath) -> Op:
    return replace(op, path=new if op.path == old else op.path, to_path=new if op.to_path == old else op.to_path)
