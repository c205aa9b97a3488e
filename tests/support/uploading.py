"""An uploader between a real journal, a real spool and a remote in memory, on trio's clock."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import trio

from fsmount.connection import Connection
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import ABSENT, Base, Body, DraftId, Op, OpId, Receipt, Record, RemotePath, State, Timing
from fsmount.retry import Policy
from fsmount.spool import FileSpool
from fsmount.uploader import Uploader
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.trio_clock import TrioClock

TIMING = Timing(settle=0.3, max_settle=3.0, delete_settle=2.0, open_settle=5.0)


class HeardOverlay:
    """What a filesystem would have heard; ``open_drafts`` are those that a handle still writes."""

    def __init__(self) -> None:
        self.open_drafts: dict[DraftId, Body] = {}
        self.frozen: list[DraftId] = []
        self.acks: list[tuple[Op, Receipt]] = []
        self.changes: list[Op] = []

    def freeze(self, draft_id: DraftId) -> Body | None:
        self.frozen.append(draft_id)
        return self.open_drafts.get(draft_id)

    def acknowledged(self, op: Op, receipt: Receipt) -> None:
        self.acks.append((op, receipt))

    def changed(self, op: Op) -> None:
        self.changes.append(op)


class UploadRig:
    """``save``, ``delete`` and ``rename`` are what a program does; ``settled`` waits for the queue to come to rest."""

    def __init__(self, folder: Path, *, remote: FakeRemote | None = None, max_attempts: int = 8) -> None:
        self.folder = folder
        self.remote = remote or FakeRemote()
        self.max_attempts = max_attempts
        self.log = Notes()
        self.clock = TrioClock()
        self.open()

    def open(self) -> None:
        """Begins a life of the daemon on whatever lies in the folder."""
        self.journal: SqliteJournal = open_journal(self.folder / "journal.db", self.clock, TIMING)
        self.journal.tell(self.log)
        self.spool = FileSpool(self.folder / "spool")
        self.overlay = HeardOverlay()
        self.connection = Connection(self.remote, self.clock, self.log)
        policy = Policy(max_attempts=self.max_attempts)
        self.uploader = Uploader(
            self.journal, self.spool, self.remote, self.connection, self.overlay, self.clock, self.log, policy
        )

    def recover(self) -> None:
        """What a start does after a crash."""
        self.journal.close()
        self.open()

        def size_of(draft_id: DraftId) -> int | None:
            with suppress(FileNotFoundError):
                draft = self.spool.open_draft(draft_id)
                draft.close()
                return draft.size
            return None

        self.journal.recover(size_of)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.connection.run)
            nursery.start_soon(self.uploader.run)

    # what a program does

    def save(self, path: str, content: bytes, *, base: Base | None = None, rewritten: bool = False) -> OpId:
        """Writes the whole file and closes it; ``rewritten``: not front to back, so that no digest is known."""
        shown = self.remote.base(path) if base is None else base
        draft = self.spool.create()
        self.journal.begin_draft(draft.draft_id, RemotePath(path), shown)
        draft.write(0, content)
        if rewritten:
            assert draft.body.digest
            draft.write(0, content)
        op_id = self.journal.put(
            draft.draft_id, RemotePath(path), shown, draft.body, content_type="text/plain", mtime=0.0, still_open=False
        )
        self.journal.end_draft(draft.draft_id)
        draft.close()
        return op_id

    def delete(self, path: str, *, base: Base | None = None) -> None:
        self.journal.delete(RemotePath(path), self.remote.base(path) if base is None else base)

    def rename(self, old: str, new: str, *, new_base: Base = ABSENT) -> None:
        self.journal.rename(RemotePath(old), RemotePath(new), self.remote.base(old), new_base)

    # what came of it

    async def settled(self, within: float = 600.0) -> float:
        """Waits until nothing is pending or being sent; how many seconds that took."""
        begun = trio.current_time()
        moved = trio.Event()

        def note() -> None:
            nonlocal moved
            moved.set()
            moved = trio.Event()

        self.journal.watch(note)
        with trio.fail_after(within):
            while self.waiting:
                await moved.wait()
        return trio.current_time() - begun

    @property
    def waiting(self) -> int:
        counts = self.journal.counts()
        return counts.pending + counts.sending

    def dead(self) -> list[Record]:
        return [found for each in self.journal.records(State.DEAD) if (found := self.journal.record(each.op.op_id))]

    def the_dead(self) -> Record:
        (record,) = self.dead()
        return record

    def the_pending(self) -> Record:
        (record,) = self.journal.records(State.PENDING)
        found = self.journal.record(record.op.op_id)
        assert found is not None
        return found
