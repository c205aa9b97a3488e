"""What programs did becomes ops: puts, deletes, renames and rmdirs, coalesced with what was never attempted.

Invariant: from an op's first attempt on nothing here changes it; a later change becomes a new op behind it, and
every new op on a name has the base of the newest unsettled op there.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from fsmount import lifecycle
from fsmount.journal.part import Part, body_columns
from fsmount.journal.rows import record_of
from fsmount.lifecycle import Event
from fsmount.model import (
    Base,
    Body,
    DraftId,
    Op,
    OpId,
    OpKind,
    Reason,
    Record,
    RemotePath,
    State,
    content_type_of,
)


class Intents(Part):
    """The journal's side that the filesystem writes to."""

    # drafts

    def begin_draft(self, draft_id: DraftId, path: RemotePath, base: Base, *, local: bool = False) -> None:
        with self._db.transaction():
            self._db.run(
                "INSERT INTO draft (draft_id, path, base_revision, base_digest, local, created_at) VALUES (?,?,?,?,?,?)",
                draft_id, path, base.revision, base.digest, int(local), self._clock.now(),
            )  # fmt: skip

    def move_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        with self._db.transaction():
            self._db.run(
                "UPDATE draft SET path = ?, base_revision = ?, base_digest = ? WHERE draft_id = ?",
                path,
                base.revision,
                base.digest,
                draft_id,
            )

    def adopt_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        with self._db.transaction():
            self._db.run("UPDATE draft SET local = 0 WHERE draft_id = ?", draft_id)
            self.move_draft(draft_id, path, base)

    def touch_draft(self, draft_id: DraftId) -> None:
        with self._db.transaction():
            self._db.run(
                "UPDATE op SET open = 1, not_before = ? WHERE body_draft = ? AND state = 'pending' AND attempted = 0",
                self._clock.monotonic() + self._timing.open_settle, draft_id,
            )  # fmt: skip

    def end_draft(self, draft_id: DraftId) -> None:
        with self._db.transaction():
            row = self._db.one("SELECT op_id FROM draft WHERE draft_id = ?", draft_id)
            self._db.run("DELETE FROM draft WHERE draft_id = ?", draft_id)
            if row is None:
                return
            if row["op_id"] is None:
                self._release(Body(size=0, digest=None, draft=draft_id))
                return
            self._db.run(
                "UPDATE op SET open = 0, not_before = min(?, max(burst_at + ?, ?)) WHERE op_id = ? AND state = 'pending' AND open = 1",
                self._clock.monotonic() + self._timing.settle, self._timing.max_settle, self._clock.monotonic(), row["op_id"],
            )  # fmt: skip

    # puts

    def put(
        self, draft_id: DraftId | None, path: RemotePath, shown: Base, body: Body, *, content_type: str, mtime: float, still_open: bool
    ) -> OpId:  # fmt: skip
        with self._db.transaction():
            newest = self._newest(path)
            op_id = self._coalesce_put(newest, path, body, content_type, still_open) or self._insert(
                OpKind.PUT, path, self._draft_base(draft_id, newest, path, shown), body=body, content_type=content_type, still_open=still_open,
                not_before=self._put_due(self._burst(newest), still_open), burst_at=self._burst(newest),
            )  # fmt: skip
            self._db.run("UPDATE draft SET op_id = ? WHERE draft_id = ?", op_id, draft_id)
            self._db.run("UPDATE node SET mtime = ?, mtime_revision = NULL WHERE path = ?", mtime, path)
            if self._db.one("SELECT 1 FROM node WHERE path = ?", path) is None:
                self._db.run(
                    "INSERT INTO node (path, parent, mtime) VALUES (?, ?, ?)",
                    path,
                    path.rpartition("/")[0] or "/",
                    mtime,
                )
            return op_id

    def _draft_base(self, draft_id: DraftId | None, newest: Record | None, path: RemotePath, shown: Base) -> Base:
        if newest is not None and newest.op.kind is not OpKind.RMDIR:
            return newest.op.base_of(path)
        row = (
            None
            if draft_id is None
            else self._db.one("SELECT base_revision, base_digest FROM draft WHERE draft_id = ?", draft_id)
        )
        return shown if row is None else Base(row["base_revision"], row["base_digest"])

    def _coalesce_put(
        self, newest: Record | None, path: RemotePath, body: Body, content_type: str, still_open: bool
    ) -> OpId | None:
        """Gives the body to the op that stands at ``path`` if that was never attempted; None where a new op is needed."""
        if newest is None or not lifecycle.may_change(newest):
            return None
        op = newest.op
        if op.kind is OpKind.PUT or (op.kind is OpKind.MOVE and op.to_path == path):
            burst = self._burst(newest)
            self._db.run(
                "UPDATE op SET body_size = ?, body_digest = ?, body_draft = ?, content_type = ?, open = ?, not_before = ? WHERE seq = ?",
                *body_columns(body), content_type, still_open, self._put_due(burst, still_open), op.seq,
            )  # fmt: skip
            if (
                op.body is not None
                and (op.body.draft, op.body.digest) != (body.draft, body.digest)
                and op.body.draft != body.draft
            ):
                self._release(op.body)
            return op.op_id
        if op.kind is OpKind.DELETE:
            self._remove(newest, Event.REPLACE)
            return self._insert(
                OpKind.PUT, path, op.base, body=body, content_type=content_type, still_open=still_open,
                not_before=self._put_due(self._clock.monotonic(), still_open), burst_at=self._clock.monotonic(),
            )  # fmt: skip
        return None

    def _burst(self, newest: Record | None) -> float:
        """When the burst that the op gathers began; now, where none is gathering."""
        if newest is not None and lifecycle.may_change(newest):
            row = self._db.one("SELECT burst_at FROM op WHERE seq = ?", newest.op.seq)
            if row is not None and row["burst_at"]:
                return float(row["burst_at"])
        return self._clock.monotonic()

    def _put_due(self, burst_at: float, still_open: bool) -> float:
        now = self._clock.monotonic()
        if still_open:
            return now + self._timing.open_settle
        return min(now + self._timing.settle, max(burst_at + self._timing.max_settle, now))

    # deletes

    def delete(self, path: RemotePath, shown: Base, *, settle: float | None = None) -> None:
        with self._db.transaction():
            self._delete(path, shown, settle)
            self._db.run("DELETE FROM node WHERE path = ?", path)

    def _delete(self, path: RemotePath, shown: Base, settle: float | None = None) -> None:
        newest = self._newest(path)
        if newest is None:
            if not shown.absent:
                self._insert_delete(path, shown, settle)
            return
        op, base = newest.op, newest.op.base_of(path)
        if op.target != path:
            return
        if lifecycle.may_change(newest):
            self._give_up(newest)
            if op.kind is OpKind.MOVE:
                self._vacate(op.path, op.base, settle)
        elif newest.state is State.DEAD and op.kind is OpKind.PUT and base.absent:
            self._discard(newest, "the file was removed here")
        if not base.absent or self._active_before(path, self._seq + 1):
            self._insert_delete(path, base, settle)

    def _insert_delete(self, path: RemotePath, base: Base, settle: float | None) -> None:
        now = self._clock.monotonic()
        wait = self._timing.delete_settle if settle is None else settle
        self._insert(OpKind.DELETE, path, base, not_before=now + wait, burst_at=now)

    def _vacate(self, path: RemotePath, base: Base, settle: float | None) -> None:
        """A move from ``path`` is not wanted any more: the old name is deleted all the same, or what stands there since is put at its base."""
        newest = self._newest(path)
        if newest is None or newest.op.target != path or newest.op.kind not in (OpKind.PUT, OpKind.MOVE):
            self._insert_delete(path, base, settle)
            return
        prefix = "base" if newest.op.kind is OpKind.PUT else "to_base"
        self._db.run(
            f"UPDATE op SET {prefix}_revision = ?, {prefix}_digest = ? WHERE seq = ?",  # noqa: S608 - fixed names
            base.revision, base.digest, newest.op.seq,
        )  # fmt: skip

    def _give_up(self, record: Record) -> None:
        """An op that was never attempted and is not wanted any more: bytes that outlived the settle time stay in ``discarded``."""
        op = record.op
        if op.body is not None and self._clock.now() - op.created_at >= self._timing.settle:
            self._discard(record, "removed here before it was sent")
        else:
            self._remove(record, Event.REPLACE)

    # renames

    def rename(self, old: RemotePath, new: RemotePath, shown_old: Base, shown_new: Base) -> None:
        """One op for the whole rename wherever one is enough; what stood unsent at ``new`` is overwritten."""
        with self._db.transaction():
            to_base = self._free_target(new, shown_new)
            source = self._newest(old)
            self._rename(source, old, new, shown_old, to_base)
            self._db.run("DELETE FROM node WHERE path = ?", new)
            self._db.run("UPDATE node SET path = ?, parent = ? WHERE path = ?", new, new.rpartition("/")[0] or "/", old)

    def _free_target(self, new: RemotePath, shown: Base) -> Base:
        """Takes back what was never attempted at ``new`` and returns the base that the rename has there."""
        newest = self._newest(new)
        if newest is None or newest.op.kind is OpKind.RMDIR:
            return shown
        op, base = newest.op, newest.op.base_of(new)
        if lifecycle.may_change(newest) and op.target == new:
            self._remove(newest, Event.REPLACE)
            if op.kind is OpKind.MOVE:
                self._vacate(op.path, op.base, None)
        return base

    def _rename(self, source: Record | None, old: RemotePath, new: RemotePath, shown_old: Base, to_base: Base) -> None:
        if source is None or source.op.kind is OpKind.RMDIR:
            if not shown_old.absent:
                self._insert_move(old, shown_old, new, to_base, None, None)
            return
        if source.op.kind is OpKind.DELETE or source.op.target != old:
            return  # what stands there is a draft that no op has yet
        op = source.op
        unsent = lifecycle.may_change(source)
        if unsent and op.kind is OpKind.MOVE and op.path != new and self._is_taken_since(op):
            self._redirect(op, new, to_base)
            return
        first, base = old, op.base_of(old)
        if unsent or source.state is State.DEAD:
            self._leave(source, unsent)
            if op.kind is OpKind.MOVE:
                if not op.target_base.absent:
                    self._insert_delete(old, op.target_base, None)
                first, base = op.path, op.base
        if first == new:
            self._back_where_it_was(op, base)
        elif base.absent and not self._active_before(old, self._seq + 1) and op.body is not None:
            self._insert_put(new, to_base, op)
        else:
            self._insert_move(first, base, new, to_base, op.body, content_type_of(new))

    def _is_taken_since(self, move: Op) -> bool:
        """Whether something new stands at a move's old name: it must stay behind the move."""
        newest = self._newest(move.path)
        return newest is not None and newest.op.seq > move.seq

    def _redirect(self, move: Op, new: RemotePath, to_base: Base) -> None:
        """The move keeps its place in the order and gets another new name; what it would have replaced is deleted."""
        self._untouch(move.seq)
        self._db.run(
            "UPDATE op SET to_path = ?, to_base_revision = ?, to_base_digest = ?, content_type = ?, not_before = ? WHERE seq = ?",
            new, to_base.revision, to_base.digest, None if move.body is None else content_type_of(new),
            self._clock.monotonic() + self._timing.settle, move.seq,
        )  # fmt: skip
        self._touch(replace(move, to_path=new, to_base=to_base), blocks=True)
        self._follow_draft(move, move.op_id, new)
        if not move.target_base.absent:
            self._insert_delete(move.target, move.target_base, None)

    def _leave(self, source: Record, unsent: bool) -> None:
        """The op at the old name goes: its intent lives on in the op that the rename makes."""
        if unsent:
            self._remove(source, Event.REPLACE)
        else:
            self._discard(source, "renamed: a newer op carries its bytes", event=Event.SUPERSEDE)

    def _back_where_it_was(self, op: Op, base: Base) -> None:
        """A move undone before it was attempted: only new content, if any, is left to send."""
        if op.body is not None:
            self._insert_put(op.path, base, op)

    def _insert_put(self, path: RemotePath, base: Base, op: Op) -> None:
        now = self._clock.monotonic()
        op_id = self._insert(
            OpKind.PUT,
            path,
            base,
            body=op.body,
            content_type=content_type_of(path),
            not_before=now + self._timing.settle,
            burst_at=now,
        )
        self._follow_draft(op, op_id, path)

    def _insert_move(
        self, old: RemotePath, base: Base, new: RemotePath, to_base: Base, body: Body | None, content_type: str | None
    ) -> None:  # fmt: skip
        now = self._clock.monotonic()
        op_id = self._insert(
            OpKind.MOVE, old, base, to_path=new, to_base=to_base, body=body, content_type=content_type,
            not_before=now + self._timing.settle, burst_at=now,
        )  # fmt: skip
        if body is not None and body.draft is not None:
            self._db.run("UPDATE draft SET op_id = ?, path = ? WHERE draft_id = ?", op_id, new, body.draft)

    def _follow_draft(self, op: Op, op_id: OpId, path: RemotePath) -> None:
        if op.body is not None and op.body.draft is not None:
            self._db.run("UPDATE draft SET op_id = ?, path = ? WHERE draft_id = ?", op_id, path, op.body.draft)

    # directories

    def rmdir(self, path: RemotePath) -> None:
        with self._db.transaction():
            now = self._clock.monotonic()
            self._insert(OpKind.RMDIR, path, Base(), not_before=now + self._timing.delete_settle, burst_at=now)

    def cancel_rmdir(self, path: RemotePath) -> bool:
        with self._db.transaction():
            newest = self._newest(path)
            if newest is None or newest.op.kind is not OpKind.RMDIR or not lifecycle.may_change(newest):
                return False
            self._remove(newest, Event.REPLACE)
            return True

    # starting and stopping

    def recover(self, size_of: Callable[[DraftId], int | None]) -> list[OpId]:
        """After a start: what was being sent is pending again, and every draft that was not closed is a dead letter.

        ``size_of`` tells the length of a draft file, None if it is not there. Returns the ops of the drafts.
        """
        with self._db.transaction():
            self._db.run("UPDATE op SET state = 'pending' WHERE state = 'sending'")
            self._db.run("UPDATE op SET not_before = 0, burst_at = 0 WHERE state = 'pending'")
            found = [self._interrupt(row["draft_id"], row["path"], Base(row["base_revision"], row["base_digest"]), row["op_id"], size_of)
                     for row in self._db.all("SELECT * FROM draft WHERE local = 0")]  # fmt: skip
            for row in self._db.all("SELECT draft_id FROM draft WHERE local = 1"):
                self._db.run(
                    "UPDATE node SET body_size = ? WHERE body_draft = ?", size_of(row["draft_id"]) or 0, row["draft_id"]
                )
            self._db.run("DELETE FROM draft")
            self._db.run("UPDATE op SET open = 0")
            return [op_id for op_id in found if op_id is not None]

    def _interrupt(
        self, draft_id: DraftId, path: RemotePath, base: Base, op_id: OpId | None, size_of: Callable[[DraftId], int | None]
    ) -> OpId | None:  # fmt: skip
        size = size_of(draft_id)
        row = (
            None
            if op_id is None
            else self._db.one("SELECT * FROM op WHERE op_id = ? AND body_draft = ?", op_id, draft_id)
        )
        if size is None or (op_id is not None and row is None):
            return None
        if row is None:
            body = Body(size=size, digest=None, draft=draft_id)
            op_id = self._insert(
                OpKind.PUT, path, base, body=body, not_before=0, burst_at=0, content_type=content_type_of(path)
            )
            row = self._db.one("SELECT * FROM op WHERE op_id = ?", op_id)
        else:
            self._db.run("UPDATE op SET body_size = ?, body_digest = NULL WHERE op_id = ?", size, op_id)
        assert row is not None
        message = "the daemon ended while a program had this file open for writing; these are the bytes it had written"
        self._move_to(record_of(row), Event.INTERRUPT, reason=Reason.INTERRUPTED, message=message)
        self._count("failed_writebacks", 1)
        return op_id

    def expedite(self) -> None:
        """Makes due what only settles: closed ops that were never attempted."""
        with self._db.transaction():
            self._db.run("UPDATE op SET not_before = 0 WHERE state = 'pending' AND attempted = 0 AND open = 0")
