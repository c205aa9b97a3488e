"""One SQLite connection, its transactions and its schema.

Invariant: every change of the journal happens inside ``transaction``, which is atomic and, once it returned, survives
``kill -9``. Only the loop's thread uses the connection; ``flush_to_disk`` alone may run elsewhere.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsmount.errors import FileError, StateError
from fsmount.journal.migration import SCHEMA_VERSION, migrate


class Database:
    """The connection. WAL with ``synchronous=NORMAL``: a commit survives the process, ``flush_to_disk`` the power."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0
        self._watchers: list[Callable[[], None]] = []
        self.version = 0
        try:
            found = _schema_of(path) if path.exists() else 0
            if found > SCHEMA_VERSION:
                raise StateError(
                    f"{path} was written by a newer fsmount (schema {found}, this one knows {SCHEMA_VERSION})",
                    hint="use that version; nothing was changed",
                )
            self.connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, cached_statements=256)
            self._open(found)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error
        if found == 0:
            os.chmod(path, 0o600)
            _sync(path.parent)

    def _open(self, found: int) -> None:
        try:
            self.connection.row_factory = sqlite3.Row
            self._configure()
            if found < SCHEMA_VERSION:
                migrate(self.connection)
            self._check()
        except BaseException:
            self.connection.close()
            raise

    def _configure(self) -> None:
        for pragma in (
            # The state directory's lock keeps everybody else out; so nothing is locked again at every statement.
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-8000",
            # Moving the log into the database syncs both: seldom enough that one close in hundreds meets it.
            "wal_autocheckpoint=4000",
        ):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()

    def _check(self) -> None:
        """Raises StateError for a damaged file. A damaged row is no damaged file: it is shown as what it is."""
        self.connection.execute("PRAGMA ignore_check_constraints=ON")
        problem = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        self.connection.execute("PRAGMA ignore_check_constraints=OFF")
        if problem != "ok":
            raise StateError(
                f"the journal {self._path} is damaged: {problem}", hint="keep the file: it may hold unsent writes"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end of the outermost one, then calls the watchers; rolls back on any exception.

        Raises FileError: ENOSPC when the disk is full, EIO for any other failure of the database.
        """
        if self._depth:
            yield
            return
        self._depth = 1
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            raise FileError(errno.ENOSPC if full else errno.EIO, f"the journal {self._path}: {error}") from error
        finally:
            self._depth = 0
        self.version += 1
        for changed in self._watchers:
            changed()

    def watch(self, changed: Callable[[], None]) -> None:
        """``changed`` is called after every transaction; it must not begin one."""
        self._watchers.append(changed)

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Executes one statement."""
        return self.connection.execute(sql, values)

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Every row."""
        return self.connection.execute(sql, values).fetchall()

    def flush_to_disk(self) -> None:
        """Makes every commit so far survive power loss; blocks, and may run in a thread.

        Commits stand in the write-ahead log, and syncing that file is what ``synchronous=FULL`` would do at each of
        them; frames that a checkpoint moved on were synced by the checkpoint (https://sqlite.org/wal.html).
        """
        _sync(self._path.with_name(self._path.name + "-wal"))

    def close(self) -> None:
        self.connection.close()


def schema_of(path: Path) -> int:
    """The schema version of a journal that nobody has open; raises StateError where it cannot be read."""
    try:
        return _schema_of(path)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: sqlite3.Error) -> StateError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return StateError(
            f"another program of this machine, perhaps in a container, has the journal {path} open",
            hint="unmount it there, or end that program",
        )
    return StateError(
        f"the journal {path} cannot be read: {error}",
        hint="keep the file: it may hold unsent writes; move the state directory aside to start without it",
    )


def _schema_of(path: Path) -> int:
    """The file's schema version, read without changing a byte of it; 0 for an empty file."""
    try:
        return _version_in(f"{path.absolute().as_uri()}?mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    # The power failed in the first transaction of all, which alone is not in the write-ahead log: SQLite undoes it.
    return _version_in(f"{path.absolute().as_uri()}?mode=rw")


def _version_in(uri: str) -> int:
    connection = sqlite3.connect(uri, uri=True)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
