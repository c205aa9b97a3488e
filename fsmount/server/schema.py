"""A new store gets its tables; one that an older version wrote gets them with its rows in them.

Invariant: it happens whole or not at all, and no row is lost.
"""

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

SCHEMA_VERSION = 3


def is_older(connection: sqlite3.Connection) -> bool:
    """Whether the store needs `bring_up_to_date`. Raises sqlite3.DatabaseError for one of a newer version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError("it was written by a newer version of fsmount")
    return bool(version < SCHEMA_VERSION)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Make the tables of this version; rows keep the columns that still exist, and new ones get their defaults.

    To be called in a transaction.
    """
    old = _names(connection, "table")
    for index in _names(connection, "index"):
        connection.execute(f"DROP INDEX {index}")
    for table in old:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in _statements():
        connection.execute(statement)
    for table in old:
        _copy(connection, table)
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _copy(connection: sqlite3.Connection, table: str) -> None:
    here = _columns(connection, table)
    both = ", ".join(name for name in _columns(connection, f"old_{table}") if name in here)
    connection.execute(f"DELETE FROM {table}")  # noqa: S608  the names are the schema's, here and below
    connection.execute(f"INSERT INTO {table} ({both}) SELECT {both} FROM old_{table}")  # noqa: S608


def _names(connection: sqlite3.Connection, kind: str) -> list[str]:
    """What the schema names itself; an index that a constraint made goes with its table."""
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL AND name NOT LIKE 'sqlite%'", (kind,)
    )
    return [row[0] for row in rows]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _statements() -> Iterator[str]:
    # executescript would commit the transaction that makes the schema appear whole or not at all.
    statement = ""
    for line in files("fsmount.server").joinpath("schema.sql").read_text(encoding="utf-8").splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
