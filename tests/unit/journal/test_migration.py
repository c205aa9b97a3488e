"""A journal of an older version keeps every row."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fsmount.errors import StateError
from fsmount.journal import SCHEMA_VERSION, open_journal
from fsmount.journal.database import Database
from fsmount.model import Base, Digest, Kind, OpId, Reason, RemotePath, Revision, State
from tests.model.world import TIMING
from tests.support.clock import ManualClock


@pytest.fixture(params=["schema1.sql", "schema2.sql"])
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(Path(__file__).with_name(request.param).read_text())
    connection.close()
    return path


def schema(path: Path) -> tuple[int, list[tuple[str, ...]]]:
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    connection.close()
    return version, found


def test_the_schema_is_that_of_a_new_journal(old: Path, tmp_path: Path) -> None:
    Database(old).close()
    Database(tmp_path / "new.db").close()
    assert schema(old) == schema(tmp_path / "new.db")
    assert schema(old)[0] == SCHEMA_VERSION == 3


def test_ops_keep_their_rows_and_their_order(old: Path) -> None:
    journal = open_journal(old, ManualClock(), TIMING)
    pending = journal.record(OpId("op_pending"))
    dead = journal.record(OpId("op_dead"))
    assert pending is not None
    assert dead is not None
    assert (pending.state, pending.op.seq, pending.op.base) == (State.PENDING, 3, Base(Revision("r1"), Digest("old")))
    assert (dead.reason, dead.attempts, [attempt.status for attempt in dead.history]) == (Reason.CONFLICT, 2, [409, 0])
    assert dead.theirs is not None
    assert dead.theirs.body is not None
    assert dead.theirs.body.digest == "theirs"
    assert (pending.forced, pending.op.group) == (False, None)
    shown = journal.shown(RemotePath("/d/a"))
    assert shown is not None
    assert shown.op.op_id == "op_pending"
    assert [claim.op.op_id for claim in journal.claim(10)] == ["op_pending"]
    journal.close()


def test_a_damaged_row_is_still_shown_as_what_it_is(old: Path) -> None:
    for _ in range(2):
        journal = open_journal(old, ManualClock(), TIMING)
        record = journal.record(OpId("op_damaged"))
        assert record is not None
        assert record.malformed is not None
        assert "zap" in record.malformed
        assert journal.op_ids(State.DEAD) == ["op_dead", "op_damaged"]
        journal.close()


def test_nodes_totals_and_drafts_are_kept(old: Path) -> None:
    journal = open_journal(old, ManualClock(), TIMING)
    node = journal.node(RemotePath("/d"))
    assert node is not None
    assert (node.kind, node.mode, node.target, node.made_at) == (Kind.DIRECTORY, 0o755, None, None)
    assert (journal.totals().acknowledged, journal.totals().bytes_up) == (7, 70)
    assert journal.counts().local == 1
    assert len(journal.recover(lambda _: 4)) == 1
    journal.close()


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute("CREATE TABLE old_node (x)")
    connection.close()
    before = schema(old)
    with pytest.raises(StateError, match="cannot be read"):
        open_journal(old, ManualClock(), TIMING)
    assert schema(old) == before
