"""A store of an older version keeps every row."""

import base64
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from fsmount.errors import StateError
from fsmount.server.payload import draft
from fsmount.server.principal import Principal
from fsmount.server.schema import SCHEMA_VERSION
from fsmount.server.store import Store

HERE = Path(__file__).parent
_FILE = (
    "INSERT INTO file VALUES (?, 'w', ?, '/Crm', 2, ?, 'text/plain', 'utf-8', ?, 1, 1, '2026-01-01T00:00:00Z', ?, ?)"
)
_OP = "INSERT INTO op VALUES (?, 'w', ?, 'put', ?, 'text/plain', 'c', 1, ?, ?, NULL)"
_EVENT = "INSERT INTO event VALUES (?, 'w', 'file.created', ?, ?, ?, 'agent_write', 'Crm', 'c', '2026-01-01T00:00:00Z')"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Version 1 with two files, of which one has rules, and a gap in its ids."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "schema1.sql").read_text())
        attached = '{"permissions":["agent:bob"]}'
        for number, (name, semantics) in enumerate((("/Crm/a", None), ("/Crm/b", attached)), 1):
            connection.execute(_FILE, (number, name, f"rev_{number}", "d" * 64, semantics, "x" * 5000))
            connection.execute(_OP, (number, name, f"rev_{number}", "k", f"key{number}"))
            connection.execute(_EVENT, (number * 10, name, f"rev_{number}", "d" * 64))
        connection.execute("UPDATE revision SET newest = 7")
        connection.execute("INSERT INTO directory VALUES ('w', '/', '/', 0, 2)")
        connection.execute("INSERT INTO directory VALUES ('w', '/Crm', '/', 1, 2)")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    return path


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_its_tables_are_those_of_a_new_store(old: Path, tmp_path: Path) -> None:
    Store(old, time.time_ns).close()
    Store(tmp_path / "new.db", time.time_ns).close()
    assert schema(old) == schema(tmp_path / "new.db")
    assert version(old) == SCHEMA_VERSION


def test_files_ops_and_events_are_kept(old: Path) -> None:
    with closing(Store(old, time.time_ns)) as store:
        assert [row.path for row in store.listings.files("w", "/")] == ["/Crm/a", "/Crm/b"]
        kept = store.file("w", "/Crm/a")
        assert kept is not None
        assert (kept.content, kept.object_id) == ("x" * 5000, None)
        assert [(op.op_id, op.provider, op.status.value) for op in store.ops.waiting("w")] == [
            ("op_1", "crm", "pending"),
            ("op_2", "crm", "pending"),
        ]
        found = store.events("w", after=None, newest_first=False, provider=None, limit=9)
        assert [event.number for event in found] == [10, 20]
        with store.transaction():
            assert store.delete("w", "/Crm/a", expected="rev_1").revision == "rev_8"
        newest = store.events("w", after=20, newest_first=False, provider=None, limit=9)
        assert [event.number for event in newest] == [21]


def test_rules_that_were_only_kept_are_in_force(old: Path) -> None:
    alice = Principal(workspace="w", subject="alice", scopes=("fs:read",))
    with closing(Store(old, time.time_ns)) as store:
        assert [store.guards.forbids("w", path, alice) for path in ("/Crm/a", "/Crm/b")] == [False, True]


def test_a_marker_in_base64_is_in_force_that_version_2_could_not_read(tmp_path: Path) -> None:
    alice, path = Principal(workspace="w", subject="alice", scopes=("fs:read",)), tmp_path / "store.db"
    content = base64.b64encode(b'{"semantics":{"permissions":["agent:bob"]}}').decode()
    with closing(Store(path, time.time_ns)) as store, store.transaction():
        store.put("w", draft("/d/.relayfile.acl", content, "base64", None), expected="*")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DELETE FROM guard; PRAGMA user_version = 2;")
    with closing(Store(path, time.time_ns)) as store:
        assert store.guards.forbids("w", "/d/f", alice)


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE old_file (x)")
        connection.commit()
    before = schema(old)
    with pytest.raises(StateError, match=r"cannot use .*store\.db"):
        Store(old, time.time_ns)
    assert (schema(old), version(old)) == (before, 1)
