"""A rename becomes one op wherever one is enough.

Invariant: what a program sees under both names afterwards is what the ops make of the remote, whatever stands before
them in the order. Where taking an earlier op back would let something between overtake it, the rename is an op of its
own behind it.
"""

from __future__ import annotations

import json

from fsmount import lifecycle
from fsmount.journal.intents import Intents, is_refused_move_to
from fsmount.lifecycle import Event
from fsmount.model import (
    Base,
    Body,
    Op,
    OpId,
    OpKind,
    Record,
    RemotePath,
    State,
    ancestors,
    content_type_of,
    parent_of,
)  # fmt: skip


class Renames(Intents):
    """Renames of files. Directories that hold files are copied by the program, file by file."""

    def rename(
        self, old: RemotePath, new: RemotePath, shown_old: Base, shown_new: Base, *, group: str | None = None
    ) -> None:
        with self._db.transaction():
            last = self._seq
            to_base = self._free_target(new, shown_new)
            self._rename(self._newest(old), old, new, shown_old, to_base)
            if group is not None:
                # What is kept of the file has gone along with its directory: ``rename_nodes``.
                self._db.run("UPDATE op SET grp = ? WHERE seq > ? AND kind = 'move'", group, last)
                return
            self._forget_node(new)
            self._db.run("UPDATE xattr SET path = ? WHERE path = ?", new, old)
            self._db.run("UPDATE node SET path = ?, parent = ? WHERE path = ?", new, parent_of(new), old)

    def _free_target(self, new: RemotePath, shown: Base) -> Base:
        """Takes back what was never attempted at ``new``, or failed to come there; the base that the rename has."""
        newest = self._newest(new)
        if newest is None or newest.op.kind is OpKind.RMDIR:
            return shown
        if is_refused_move_to(newest, new):
            self._withdraw_move(newest)
        elif lifecycle.may_change(newest) and newest.op.target == new:
            if newest.op.kind is OpKind.MOVE:
                self._withdraw_move(newest)
            elif newest.op.kind is OpKind.DELETE:
                self._take_back(newest)
            else:
                self._remove(newest, Event.REPLACE)
        elif newest.op.kind is OpKind.DELETE and newest.state is State.HELD:
            self._let_go(newest)
        return newest.op.base_of(new)

    def _rename(
        self, source: Record | None, old: RemotePath, new: RemotePath, shown_old: Base, to_base: Base
    ) -> None:  # fmt: skip
        if source is None or source.op.kind in (OpKind.DELETE, OpKind.RMDIR) or source.op.target != old:
            self._rename_remote(source, old, new, shown_old, to_base)
            return
        op = source.op
        if lifecycle.may_change(source) or source.state is State.DEAD:
            if op.kind is OpKind.PUT:
                self._readdress_put(source, new, to_base)
                return
            if op.step == 0 and not self._overtaken(op):
                self._readdress_move(source, new, to_base)
                return
        self._insert_move(old, op.target_base, new, to_base, op.body)

    def _rename_remote(
        self, source: Record | None, old: RemotePath, new: RemotePath, shown: Base, to_base: Base
    ) -> None:  # fmt: skip
        """No unsent bytes are at ``old``: what the remote holds there moves, or a draft alone, which needs no op."""
        if source is not None and self._empties(source, old):
            return
        # Over a dead delete the remote's file shows again: that one was renamed, not the one that was to be deleted.
        if not shown.absent:
            self._insert_move(old, shown, new, to_base, None)

    def _readdress_put(self, source: Record, new: RemotePath, to_base: Base) -> None:
        op = source.op
        doubtful = self._may_have_arrived(op.path)
        self._leave(source)
        if op.base.absent and not doubtful and not self._active(op.path):
            self._left(source, self._insert_put_of(op.body, new, to_base))
            self._discard_dead(op.path)
        else:
            self._left(source, self._insert_move(op.path, op.base, new, to_base, op.body))

    def _readdress_move(self, source: Record, new: RemotePath, to_base: Base) -> None:
        """One move from where the file was at first; a file that the earlier move had overwritten is removed."""
        op = source.op
        doubtful = self._may_have_arrived(op.target)
        self._leave(source)
        if op.target_base.absent and not self._active(op.target):
            self._discard_dead(op.target)
        if not op.target_base.absent or self._active(op.target) or doubtful:
            self._insert_delete(op.target, op.target_base)
        if op.path != new:
            self._left(source, self._insert_move(op.path, op.base, new, to_base, op.body))
        elif op.body is not None:
            self._left(source, self._insert_put_of(op.body, new, op.base))

    def _leave(self, source: Record) -> None:
        """The op at the old name goes: its intent lives on in the op that the rename makes."""
        if source.state is State.DEAD:
            self._discard(source, "renamed: a newer op carries its bytes", event=Event.SUPERSEDE)
        else:
            self._remove(source, Event.REPLACE)

    def _left(self, source: Record, op_id: OpId) -> None:
        self._db.run("UPDATE op SET superseded_by = ? WHERE op_id = ?", op_id, source.op.op_id)

    def _overtaken(self, op: Op) -> bool:
        """Whether something after the move has to do with its old name, and so counts on the move's place."""
        row = self._db.one(
            "SELECT 1 FROM touch JOIN op USING (seq) WHERE touch.seq > ?1 AND sound AND (touch.path = ?2"
            " OR touch.path > ?2 || '/' AND touch.path < ?2 || '0' OR touch.path IN (SELECT value FROM json_each(?3)))"
            " LIMIT 1",
            op.seq, op.path, json.dumps(ancestors(op.path)),
        )  # fmt: skip
        return row is not None

    def _insert_put_of(self, body: Body | None, path: RemotePath, base: Base) -> OpId:
        op = self._draw_up(OpKind.PUT, path, base, body=body, content_type=content_type_of(path))
        self._follow_draft(op)
        return self._insert_put(op)

    def _insert_move(
        self, old: RemotePath, base: Base, new: RemotePath, to_base: Base, body: Body | None
    ) -> OpId:  # fmt: skip
        now = self._clock.monotonic()
        op = self._draw_up(
            OpKind.MOVE, old, base, to=(new, to_base), body=body, content_type=content_type_of(new)
        )  # fmt: skip
        self._follow_draft(op)
        self._insert(op, not_before=now + self._timing.settle, burst_at=now)
        self._hold_if_behind(op)
        return op.op_id

    def _follow_draft(self, op: Op) -> None:
        """The draft that the op's bytes are still written to belongs to the new op."""
        if op.body is not None and op.body.draft is not None:
            self._db.run("UPDATE draft SET op_id = ?, path = ? WHERE draft_id = ?", op.op_id, op.target, op.body.draft)
