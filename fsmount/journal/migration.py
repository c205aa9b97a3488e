"""A new journal gets its tables; one that an older version wrote gets them with its rows in them.

Invariant: it happens whole or not at all, and no row is lost, a damaged one neither.
"""

from __future__ import annotations

import sqlite3
from importlib.resources import files

SCHEMA_VERSION = 3


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the open journal to ``SCHEMA_VERSION`` in one transaction.

    A table keeps the columns that it still has; new ones get their defaults. Raises sqlite3.Error; the caller then
    closes the connection, which undoes everything.
    """
    old = _names(connection, "table")
    indexes, views = _names(connection, "index"), _names(connection, "view")
    connection.execute("BEGIN")
    for kind, names in (("VIEW", views), ("INDEX", indexes)):
        for name in names:
            connection.execute(f"DROP {kind} {name}")
    for table in old:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in _statements():
        connection.execute(statement)
    connection.execute("PRAGMA ignore_check_constraints=ON")
    kept = set(old) & set(_names(connection, "table"))
    for table in old:
        if table in kept:
            _copy(connection, table)
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute("PRAGMA ignore_check_constraints=OFF")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _copy(connection: sqlite3.Connection, table: str) -> None:
    here = _columns(connection, table)
    both = ", ".join(name for name in _columns(connection, f"old_{table}") if name in here)
    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - the names are the schema's, here and below
    connection.execute(f"INSERT INTO {table} ({both}) SELECT {both} FROM old_{table}")  # noqa: S608


def _names(connection: sqlite3.Connection, kind: str) -> list[str]:
    """What the schema names itself; an index that a constraint made goes with its table."""
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL AND name NOT LIKE 'sqlite%'", (kind,)
    )
    return [row[0] for row in rows]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Those that hold something: a generated one is not among them."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _statements() -> list[str]:
    """Those of schema.sql, one by one: ``executescript`` would commit what came before."""
    found, statement = [], ""
    for line in files("fsmount.journal").joinpath("schema.sql").read_text().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return [*found, statement]
