"""How long the next mount takes to go on after a crash with much in the queue."""

from __future__ import annotations

import time
from pathlib import Path

from fsmount.app.recovery import recover
from fsmount.clock import SystemClock
from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import ABSENT, DraftId, RemotePath
from fsmount.spool import FileSpool
from tests.faults.life import TIMING

QUEUED = 10_000
OPEN = 100


def queue(journal: SqliteJournal, spool: FileSpool) -> None:
    """Ten thousand files that were closed, and some that were not."""
    with journal.transaction():
        for number in range(QUEUED):
            path = RemotePath(f"/d{number % 100}/{number}")
            draft = spool.create()
            draft.write(0, b"content %d" % number)
            journal.begin_draft(draft.draft_id, path, ABSENT)
            journal.put(
                draft.draft_id, path, ABSENT, draft.body, content_type="text/plain", mtime=0.0, still_open=False
            )
            if number >= OPEN:
                journal.end_draft(draft.draft_id)
            draft.close()


def test_ten_thousand_ops_are_taken_up_within_a_second(tmp_path: Path) -> None:
    clock = SystemClock()
    journal = open_journal(tmp_path / "journal.db", clock, TIMING)
    queue(journal, FileSpool(tmp_path / "spool"))
    journal.claim(256)  # and these were being sent
    journal.close()
    log = FileEventLog(tmp_path / "log", clock)
    began = time.process_time()
    journal = open_journal(tmp_path / "journal.db", clock, TIMING)
    spool = FileSpool(tmp_path / "spool")
    recover(journal, spool, log)
    claims = journal.claim(256)
    took = time.process_time() - began
    counts = journal.counts()
    log.close()
    journal.close()
    assert (len(claims), counts.pending + counts.sending, counts.dead) == (256, QUEUED - OPEN, OPEN)
    drafts = [DraftId(name.name) for name in (tmp_path / "spool" / "drafts").iterdir()]
    assert len(drafts) == QUEUED, "every body is there"
    assert took < 1.0, f"{took:.2f} s"
