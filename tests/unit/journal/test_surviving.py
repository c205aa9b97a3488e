"""Crashes, damaged rows, full disks and files of another version."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from fsmount.errors import FileError, StateError, VerbRefused
from fsmount.journal import SCHEMA_VERSION, open_journal
from fsmount.journal.database import Database
from fsmount.model import ABSENT, Body, Digest, Kind, LocalNode, OpKind, Reason, RemotePath, State
from tests.model.world import TIMING, World
from tests.support.clock import ManualClock
from tests.support.program import deliver, due, only, queue, remove, rename, save

A, B = RemotePath("/d/a"), RemotePath("/d/b")


def damage(world: World, change: str, *values: object) -> None:
    """Changes rows behind the journal's back, as another program could while no daemon runs."""
    world.journal.close()
    with sqlite3.connect(world.path) as other:
        other.execute("PRAGMA ignore_check_constraints=ON")
        other.execute(f"UPDATE op SET {change}", values)
    other.close()
    world.reopen()


# crashes


def test_what_was_being_sent_is_pending_and_due_again(world: World) -> None:
    save(world, A, "one")
    due(world)
    assert world.reopen() == []
    assert [claim.op.path for claim in world.claim()] == [A]


def test_a_draft_that_was_not_closed_is_an_interrupted_dead_letter(world: World) -> None:
    world.remote.write(A, "old")
    draft = world.begin(A)
    world.flush(draft, A, "half")
    (op_id,) = world.reopen()
    dead = only(world, State.DEAD)
    assert (dead.op.op_id, dead.reason, dead.op.base.revision) == (op_id, Reason.INTERRUPTED, "r1")
    assert world.shows(A) == "old"
    assert due(world) == []
    assert world.journal.totals().failed_writebacks == 1
    world.journal.retry(op_id)
    deliver(world)
    assert world.remote.content(A) == "half"


def test_a_draft_that_was_never_flushed_is_kept_too(world: World) -> None:
    world.drafts[world.begin(A)] = "typed"
    world.reopen()
    assert world.kept() == {"typed"}
    assert only(world, State.DEAD).reason is Reason.INTERRUPTED


def test_a_draft_without_a_file_leaves_nothing(world: World) -> None:
    del world.drafts[world.begin(A)]
    assert world.reopen() == []
    assert world.journal.records() == []


def test_a_litter_draft_is_a_local_file_and_no_dead_letter(world: World) -> None:
    draft = world.begin(A)
    world.journal.end_draft(draft)
    world.journal.begin_draft(draft, A, ABSENT, local=True)
    world.journal.keep(LocalNode(path=A, kind=Kind.FILE, body=Body(size=1, digest=None, draft=draft)))
    world.drafts[draft] = "longer"
    assert world.reopen() == []
    node = world.journal.node(A)
    assert node is not None
    assert node.body == Body(size=6, digest=None, draft=draft)
    assert draft in world.drafts


def test_a_crash_between_announcing_and_sealing_keeps_the_draft(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    body = claim.op.body
    assert body is not None
    world.journal.sealed(claim, body)
    world.reopen()
    deliver(world)
    assert world.remote.content(A) == "one"


# damaged rows


@pytest.mark.parametrize(
    "change",
    ["kind = 'zap'", "state = 'zap'", "path = 'zap'", "reason = 'zap'", "body_size = NULL", "to_path = '/zap'"],
)
def test_a_damaged_row_is_shown_kept_and_in_nobodys_way(world: World, change: str) -> None:
    damaged = save(world, A, "one")
    damage(world, change)
    save(world, B, "two")
    newer = save(world, A, "three")
    deliver(world)
    assert (world.remote.content(A), world.remote.content(B)) == ("three", "two")
    assert world.journal.next_due() is None
    (record,) = world.journal.records(State.DEAD)
    assert (record.op.op_id, record.malformed is not None) == (damaged, True)
    assert damaged != newer
    for verb in (world.journal.retry, world.journal.discard):
        with pytest.raises(VerbRefused) as refused:
            verb(damaged)
        assert refused.value.errno == errno.EBUSY
    counts = world.journal.counts()
    assert (counts.dead, counts.pending, counts.sending) == (1, 0, 0)
    world.reopen()
    assert world.journal.op_ids(State.DEAD) == [damaged]


def test_the_schema_knows_every_word_of_the_model(world: World) -> None:
    for reason in Reason:
        damage_free = save(world, RemotePath(f"/d/{reason}"), "one")
        world.journal._db.run(
            "UPDATE op SET state = 'dead-letter', reason = ? WHERE op_id = ?", reason.value, damage_free
        )
    (sound,) = world.journal._db.all("SELECT min(sound) FROM op")
    assert sound[0] == 1
    for word in [*State, *OpKind]:
        assert f"'{word.value}'" in world.journal._db.all("SELECT sql FROM sqlite_master WHERE name = 'op'")[0][0]


# the file


def test_a_full_disk_is_told_and_changes_nothing(world: World) -> None:
    save(world, A, "one")
    database = world.journal._db
    (pages,) = database.connection.execute("PRAGMA page_count").fetchone()
    database.connection.execute(f"PRAGMA max_page_count={pages}")
    before = queue(world)
    told = None
    for number in range(1000):
        body = Body(size=50, digest=Digest("x" * 50))
        path = RemotePath(f"/d/{number}")
        try:
            world.journal.put(None, path, ABSENT, body, content_type="", mtime=0.0, still_open=False)
        except FileError as error:
            told = error.errno
            break
        before = queue(world)
    assert told == errno.ENOSPC
    assert queue(world) == before


class Quota:
    """A connection of whose transactions none finds room until the journal's reserve is given up."""

    def __init__(self, database: Database) -> None:
        assert database.reserve is not None
        self._reserve = database.reserve
        self._connection = database.connection
        self.refused = 0

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.refused % 2 == 0:
            self._reserve.fill()
            self._connection.execute("ROLLBACK")  # as SQLite itself does then
            self.refused += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
            raise error
        self.refused += sql == "COMMIT"
        return self._connection.execute(sql, values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_what_finds_no_room_because_of_a_quota_goes_into_the_reserve(world: World) -> None:
    world.remote.write(B, "old")
    world.journal._db.connection = quota = Quota(world.journal._db)  # type: ignore[assignment]
    save(world, A, "one")
    save(world, A, "two")
    rename(world, A, "/d/c")
    remove(world, B)
    deliver(world)
    assert [world.remote.content(RemotePath(path)) for path in (A, B, "/d/c")] == [None, None, "two"]
    assert (world.journal.counts().pending, world.journal.totals().acknowledged) == (0, 2)
    assert quota.refused > 10
    assert not world.path.with_name("journal.db-reserve").exists()


def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Database(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="newer"):
        open_journal(path, ManualClock(), TIMING)
    assert path.read_bytes() == before


def test_a_file_that_is_no_journal_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(StateError, match="cannot be read"):
        open_journal(path, ManualClock(), TIMING)
    assert path.read_bytes() == b"not a database" * 500


@pytest.mark.parametrize(("flipped", "lost"), [(None, False), (100, True), (20, True)], ids=["sound", "page", "salt"])
def test_a_log_that_goes_on_behind_what_is_read_of_it_is_noticed(
    tmp_path: Path, flipped: int | None, lost: bool
) -> None:
    path, crashed = tmp_path / "journal.db", tmp_path / "crashed.db"
    database = Database(path)
    for number in range(5):
        with database.transaction():
            database.run("INSERT INTO setting VALUES (?, 'x')", f"setting {number}")
    log = bytearray(path.with_name("journal.db-wal").read_bytes())
    if flipped is not None:
        log[32 + flipped] ^= 1
    crashed.write_bytes(path.read_bytes())
    crashed.with_name("crashed.db-wal").write_bytes(log)
    database.close()
    again = Database(crashed)
    assert again.lost_commits is lost
    assert len(again.all("SELECT * FROM setting")) == (0 if lost else 5)
    again.close()
