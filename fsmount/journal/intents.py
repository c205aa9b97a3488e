"""What programs did becomes ops: puts, deletes and rmdirs, coalesced with what was never attempted.

Invariant: from an op's first attempt on nothing here changes it; a later change becomes a new op behind it, and
every new op on a name has the base of the newest unsettled op there.
"""

from __future__ import annotations

from fsmount import lifecycle
from fsmount.journal.brake import Brake
from fsmount.journal.part import body_columns
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    ABSENT,
    Base,
    Body,
    DraftId,
    Op,
    OpId,
    OpKind,
    Record,
    RemotePath,
    State,
    parent_of,
)  # fmt: skip


class Intents(Brake):
    """The journal's side that the filesystem writes to; renames are in ``Renames``."""

    # drafts

    def begin_draft(self, draft_id: DraftId, path: RemotePath, base: Base, *, local: bool = False) -> None:
        with self._db.transaction():
            self._db.run(
                "INSERT INTO draft (draft_id, path, base_revision, base_digest, local, created_at)"
                " VALUES (?,?,?,?,?,?)",
                draft_id, path, base.revision, base.digest, int(local), self._clock.now(),
            )  # fmt: skip

    def move_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        with self._db.transaction():
            self._db.run(
                "UPDATE draft SET path = ?, base_revision = ?, base_digest = ? WHERE draft_id = ?",
                path, base.revision, base.digest, draft_id,
            )  # fmt: skip

    def adopt_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        with self._db.transaction():
            self._db.run("UPDATE draft SET local = 0 WHERE draft_id = ?", draft_id)
            self.move_draft(draft_id, path, base)

    def touch_draft(self, draft_id: DraftId) -> None:
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET open = 1, not_before = ? WHERE body_draft = ?"
                " AND state IN ('pending', 'held') AND attempted = 0",
                self._clock.monotonic() + self._timing.open_settle, draft_id,
            )  # fmt: skip

    def end_draft(self, draft_id: DraftId) -> None:
        with self._db.transaction():
            row = self._db.one("SELECT op_id FROM draft WHERE draft_id = ?", draft_id)
            if row is None:
                return
            self._db.run("DELETE FROM draft WHERE draft_id = ?", draft_id)
            # Where an op or a litter file has the bytes, ``released`` finds that and keeps them.
            self._release(Body(size=0, digest=None, draft=draft_id))
            now = self._clock.monotonic()
            self._db.run(
                "UPDATE op SET open = 0, not_before = min(?, max(burst_at + ?, ?))"
                " WHERE op_id = ? AND state IN ('pending', 'held') AND attempted = 0 AND open = 1",
                now + self._timing.settle, self._timing.max_settle, now, row["op_id"],
            )  # fmt: skip

    # puts

    def put(
        self,
        draft_id: DraftId | None,
        path: RemotePath,
        shown: Base,
        body: Body,
        *,
        content_type: str,
        mtime: float,
        still_open: bool,
    ) -> OpId:
        with self._db.transaction():
            newest = self._newest(path)
            op_id = self._coalesced(newest, path, body, content_type, still_open)
            if op_id is None and newest is not None and is_refused_move_to(newest, path):
                op_id = self._take_over(newest, path, body, content_type, still_open)
            if op_id is None:
                base = self._base(draft_id, newest, path, shown)
                op = self._draw_up(OpKind.PUT, path, base, body=body, content_type=content_type)
                op_id = self._insert_put(op, still_open=still_open)
                if newest is not None and newest.op.kind is OpKind.DELETE:
                    self._replace_delete(newest, op_id)
            if draft_id is not None:
                self._db.run("UPDATE draft SET op_id = ? WHERE draft_id = ?", op_id, draft_id)
            self._db.run(
                "INSERT INTO node (path, parent, mtime) VALUES (?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET mtime = excluded.mtime, mtime_revision = NULL",
                path, parent_of(path), mtime,
            )  # fmt: skip
            return op_id

    def _base(self, draft_id: DraftId | None, newest: Record | None, path: RemotePath, shown: Base) -> Base:
        if newest is not None and newest.op.kind is not OpKind.RMDIR:
            return newest.op.base_of(path)
        if draft_id is None:
            return shown
        row = self._db.one("SELECT base_revision, base_digest FROM draft WHERE draft_id = ?", draft_id)
        return shown if row is None else Base(row["base_revision"], row["base_digest"])

    def _coalesced(
        self, newest: Record | None, path: RemotePath, body: Body, content_type: str, still_open: bool
    ) -> OpId | None:
        """The op at ``path``, now with this body, if it was never attempted; None where a new op is needed."""
        if newest is None or not lifecycle.may_change(newest):
            return None
        op = newest.op
        if op.target != path or op.kind not in (OpKind.PUT, OpKind.MOVE):
            return None
        row = self._db.one("SELECT burst_at FROM op WHERE seq = ?", op.seq)
        began = (row and row["burst_at"]) or self._clock.monotonic()
        self._db.run(
            "UPDATE op SET body_size = ?, body_digest = ?, body_draft = ?, content_type = ?, open = ?, not_before = ?,"
            " burst_at = ? WHERE seq = ?",
            *body_columns(body), content_type, still_open, self._due(began, still_open), began, op.seq,
        )  # fmt: skip
        if op.body != body:
            self._release(op.body)
        return op.op_id

    def _take_over(
        self, dead: Record, path: RemotePath, body: Body, content_type: str, still_open: bool
    ) -> OpId:  # fmt: skip
        """The file was renamed, which was refused, and is saved anew: the same move with these bytes.

        It has the dead one's place in the order: what came to the old name since counts on that.
        """
        old, now = dead.op, self._clock.monotonic()
        self._discard(dead, "saved again: a newer op renames the file and brings the new bytes", event=Event.SUPERSEDE)
        self._db.run("UPDATE op SET seq = ? WHERE seq = ?", self._next_seq(), old.seq)
        op = self._draw_up(
            OpKind.MOVE, old.path, old.base, to=(path, old.target_base), body=body, content_type=content_type,
            seq=old.seq,
        )  # fmt: skip
        self._insert(op, not_before=self._due(now, still_open), burst_at=now, still_open=still_open)
        self._db.run("UPDATE op SET superseded_by = ? WHERE op_id = ?", op.op_id, old.op_id)
        return op.op_id

    def _replace_delete(self, newest: Record, op_id: OpId) -> None:
        """A name made again needs no delete of its own; one that was attempted goes first, for it may have arrived."""
        if lifecycle.may_change(newest):
            self._take_back(newest)
        elif newest.state is State.HELD:
            self._let_go(newest)
        elif newest.state is State.DEAD:
            self._discard(newest, f"the file was made again: {op_id}", event=Event.SUPERSEDE, by=op_id)

    def _take_back(self, delete: Record) -> None:
        """What it had given up unsent may be tried again by itself."""
        op_id = delete.op.op_id
        self._remove(delete, Event.REPLACE)
        self._counted.pop(op_id, None)
        self._db.run("UPDATE op SET superseded_by = NULL WHERE superseded_by = ? AND kind = 'put'", op_id)

    def _insert_put(self, op: Op, *, still_open: bool = False) -> OpId:
        now = self._clock.monotonic()
        return self._insert(op, not_before=self._due(now, still_open), burst_at=now, still_open=still_open)

    def _due(self, burst_at: float, still_open: bool) -> float:
        now = self._clock.monotonic()
        if still_open:
            return now + self._timing.open_settle
        return min(now + self._timing.settle, max(burst_at + self._timing.max_settle, now))

    # deletes

    def delete(self, path: RemotePath, shown: Base, *, settle: float | None = None, brake: int | None = None) -> None:
        with self._db.transaction():
            queued = self._delete(self._newest(path), path, shown, settle)
            node = self._put_aside(path, queued[-1].op_id) if queued else self._forget_node(path)
            known = [op.op_id for op in queued if not op.base.absent]
            if brake is not None and known and not (node is not None and self._is_young(node["made_at"])):
                self._brake(known, brake)

    def _delete(self, newest: Record | None, path: RemotePath, shown: Base, settle: float | None) -> list[Op]:
        """The deletes that this makes; the last one says what was given up for it."""
        if newest is None:
            return [] if shown.absent else [self._insert_delete(path, shown, settle)]
        if self._empties(newest, path):
            return []
        op, dead, queued = newest.op, newest.state is State.DEAD, []
        base = shown if op.kind is OpKind.RMDIR else op.base_of(path)
        if op.kind is OpKind.MOVE and op.target == path and (dead or lifecycle.may_change(newest)):
            queued += self._withdraw_move(newest)
        elif lifecycle.may_change(newest):
            self._give_up(newest)
        doubtful = self._may_have_arrived(path)
        if base.absent and not self._active(path):
            self._discard_dead(path)
        if not base.absent or self._active(path) or doubtful:
            queued.append(self._insert_delete(path, base, settle))
        if queued and lifecycle.may_change(newest):
            self._db.run("UPDATE op SET superseded_by = ? WHERE op_id = ?", queued[-1].op_id, op.op_id)
        return queued

    def _insert_delete(
        self, path: RemotePath, base: Base, settle: float | None = None, *, seq: int | None = None
    ) -> Op:
        now = self._clock.monotonic()
        wait = self._timing.delete_settle if settle is None else settle
        op = self._draw_up(OpKind.DELETE, path, base, seq=seq)
        self._insert(op, not_before=now + wait, burst_at=now)
        return op

    def _give_up(self, record: Record) -> None:
        """An op that was never attempted is not wanted any more: bytes that outlived the settle time stay discarded."""
        op = record.op
        if op.body is not None and not 0 <= self._clock.now() - op.created_at < self._timing.settle:
            self._discard(record, "removed here before it was sent")
        else:
            self._remove(record, Event.REPLACE)

    def _may_have_arrived(self, path: RemotePath) -> bool:
        """Whether a dead put may be at the remote after all: of its several attempts one may have lost its answer.

        A conflict was compared with what is there; a single attempt that ended with a verdict was the only one.
        """
        return self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.path = ? AND state = 'dead-letter' AND kind = 'put'"
            " AND sound AND (lease > 1 AND reason <> 'conflict' OR reason = 'exhausted') LIMIT 1",
            path,
        ) is not None  # fmt: skip

    def _discard_dead(self, path: RemotePath) -> None:
        """The name is gone and no op will say so to the remote: what could not be put there does not show again."""
        for row in self._db.all(
            "SELECT op.* FROM touch JOIN op USING (seq) WHERE touch.path = ?1 AND state = 'dead-letter'"
            " AND (kind = 'put' OR to_path = ?1) AND sound",
            path,
        ):
            record = record_of(row)
            if record.op.kind is OpKind.MOVE:
                self._withdraw_move(record)
            else:
                self._discard(record, "the file was removed here")

    def _withdraw_move(self, record: Record) -> list[Op]:
        """The file at a move's new name is gone: what is left of the move is the removal of the old name.

        The removal has the move's place in the order, because the old name may have been taken again since. A newer op
        of exactly that name brings the removal with it: it was made from the same base. Returns the removal, if any.
        """
        op = record.op
        if record.state is State.DEAD:
            self._discard(record, "the file was removed here", event=Event.SUPERSEDE)
        else:
            self._give_up(record)
        self._db.run("UPDATE op SET seq = ? WHERE seq = ?", self._next_seq(), op.seq)
        if self._later(op.path, op.seq):
            return []
        if op.base.absent and not self._active(op.path):
            self._discard_dead(op.path)
        # A move from an absent base is made only where the old name may hold the bytes all the same.
        removal = self._insert_delete(op.path, op.base, seq=op.seq)
        self._db.run("UPDATE op SET superseded_by = ? WHERE op_id = ?", removal.op_id, op.op_id)
        return [removal]

    # directories

    def rmdir(self, path: RemotePath) -> None:
        with self._db.transaction():
            now = self._clock.monotonic()
            op = self._draw_up(OpKind.RMDIR, path, ABSENT)
            self._insert(op, not_before=now + self._timing.delete_settle, burst_at=now)
            self._hold_if_behind(op)

    def cancel_rmdir(self, path: RemotePath) -> bool:
        newest = self._newest(path)
        if newest is None or newest.op.kind is not OpKind.RMDIR or not lifecycle.may_change(newest):
            return False
        with self._db.transaction():
            self._remove(newest, Event.REPLACE)
        return True

    # stopping

    def expedite(self) -> None:
        """Makes due what only settles: closed ops that were never attempted."""
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET not_before = 0"
                " WHERE state = 'pending' AND not_before > ? AND attempted = 0 AND open = 0",
                self._clock.monotonic(),
            )

    def hurry(self, op_id: OpId) -> None:
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET not_before = 0, open = 0 WHERE op_id = ? AND state = 'pending' AND sound", op_id
            )


def is_refused_move_to(record: Record, path: RemotePath) -> bool:
    """Whether the op is a dead letter that has yet to bring the file to ``path``, its new name."""
    op = record.op
    return record.state is State.DEAD and op.kind is OpKind.MOVE and op.target == path and op.step == 0
