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

from fsmount.errors import FileError, FsmountError, JournalDamaged, MachineLacks, StateError
from fsmount.journal.migration import SCHEMA_VERSION, migrate
from fsmount.journal.reserve import Reserve
from fsmount.journal.wal import goes_on

_PERMIT = "make it, and its directory, readable and writable for you"
_NOT_ALLOWED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH)


class Database:
    """The connection. WAL with ``synchronous=NORMAL``: a commit survives the process, ``flush_to_disk`` the power.

    ``known``: the journal has been there before, so that a missing or empty one is damaged and not new. With a path of
    None it is kept in memory, and nothing of it lasts.
    """

    def __init__(self, path: Path | None, *, known: bool = False) -> None:
        self._path = path
        self._depth = 0
        self._watchers: list[Callable[[], None]] = []
        self._changes: list[tuple[str, tuple[Any, ...]]] = []
        """What the transaction that is under way has executed."""
        self._files: list[tuple[str, int]] = []
        self.reserve: Reserve | None = None
        self.version = 0
        self.damage = ""
        """Why nothing can be written; empty while it can."""
        self.lost_commits = False
        """The write-ahead log goes on behind what could be read of it: it was damaged, or the power failed."""
        if path is None:
            self._connect(":memory:", 0)
        else:
            self._begin(path, known=known)

    def _begin(self, path: Path, *, known: bool) -> None:
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise MachineLacks(f"the journal {path} cannot be opened: permission denied", hint=_PERMIT)
        found, self.lost_commits = examined(path) if path.exists() else (0, False)
        try:
            if found > SCHEMA_VERSION:
                raise StateError(
                    f"{path} was written by a newer fsmount (schema {found}, this one knows {SCHEMA_VERSION})",
                    hint="use that version; nothing was changed",
                )
            if known and not found:
                raise JournalDamaged(f"the journal {path} is {'empty' if path.exists() else 'gone'}")
            self._connect(path, found)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error
        if found == 0:
            os.chmod(path, 0o600)
            _sync(path.parent)
        for name in (os.fspath(path), f"{path}-wal"):
            self._files.append((name, os.stat(name).st_ino))
        self.reserve = Reserve(path.with_name(f"{path.name}-reserve"))

    def _connect(self, place: Path | str, found: int) -> None:
        self.connection = sqlite3.connect(place, timeout=1.0, isolation_level=None, cached_statements=256)
        self._open(found)

    def _open(self, found: int) -> None:
        try:
            self.connection.row_factory = sqlite3.Row
            self._configure()
            if found < SCHEMA_VERSION:
                migrate(self.connection)
                # So that the file is never without its tables, whatever becomes of the log.
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
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

    def _check_there(self) -> None:
        """Raises FileError EIO where somebody has removed or replaced the files: what is written now would vanish."""
        try:
            if all(os.stat(name).st_ino == inode for name, inode in self._files):
                return
        except OSError:
            pass
        self.damage = f"the journal {self._path} was removed or replaced while it was in use"
        raise FileError(errno.EIO, self.damage)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end of the outermost one, then calls the watchers; rolls back on any exception.

        Raises FileError: ENOSPC when the disk is full, EDQUOT when the quota is, EIO for any other failure.
        """
        if self._depth:
            yield
            return
        self._check_there()
        if self.reserve is not None:
            self.reserve.give_if_low()
        self._depth = 1
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._commit()
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            self._depth = 0
            self._changes.clear()
        self.version += 1
        for changed in self._watchers:
            changed()

    def _commit(self) -> None:
        """A commit that finds no room is rolled back by SQLite: what it held is written again into the reserve's."""
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if not _has_no_room(error) or self.reserve is None or not self.reserve.give():
                raise
        else:
            return
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
            for sql, values in self._changes:
                self.connection.execute(sql, values).fetchall()
        self.connection.execute("COMMIT")

    def _failed(self, error: sqlite3.Error) -> FileError:
        said = f"the journal {self._path}: {error}"
        if _code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self.damage = said
        if not _has_no_room(error):
            return FileError(errno.EIO, said)
        refused = 0
        if self.reserve is not None:
            refused = self.reserve.refusal()
            self.reserve.give()  # the next transaction finds room
        if not refused and _code(error) != sqlite3.SQLITE_FULL:
            return FileError(errno.EIO, said)
        return FileError(refused or errno.ENOSPC, f"{said}: {os.strerror(refused or errno.ENOSPC)}")

    def watch(self, changed: Callable[[], None]) -> None:
        """``changed`` is called after every transaction; it must not begin one."""
        self._watchers.append(changed)

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Executes one statement."""
        if self._depth and not sql.startswith("SELECT"):
            self._changes.append((sql, values))
        return self.connection.execute(sql, values)

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self.run(sql, *values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Every row."""
        return self.run(sql, *values).fetchall()

    def flush_to_disk(self) -> None:
        """Makes every commit so far survive power loss; blocks, and may run in a thread.

        Commits stand in the write-ahead log, and syncing that file is what ``synchronous=FULL`` would do at each of
        them; frames that a checkpoint moved on were synced by the checkpoint (https://sqlite.org/wal.html).
        """
        if self._path is not None:
            _sync(self._path.with_name(self._path.name + "-wal"))

    def close(self) -> None:
        self.connection.close()


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))


def _has_no_room(error: sqlite3.Error) -> bool:
    """Whether the disk may have refused to take more: of a quota SQLite knows nothing but that the write failed."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def _unreadable(path: Path, error: sqlite3.Error) -> FsmountError:
    if _code(error) & 0xFF == sqlite3.SQLITE_BUSY:
        return StateError(
            f"another program of this machine, perhaps in a container, has the journal {path} open",
            hint="unmount it there, or end that program",
        )
    if _code(error) & 0xFF in _NOT_ALLOWED:
        return MachineLacks(f"the journal {path} cannot be opened: {error}", hint=_PERMIT)
    return JournalDamaged(f"the journal {path} cannot be read: {error}")


def examined(path: Path) -> tuple[int, bool]:
    """The file's schema version, 0 for an empty file, and whether its log goes on behind what SQLite reads of it.

    Raises JournalDamaged unless the whole file is sound; a damaged row is no damaged file: it is shown as what it is.
    Not a byte is changed: closing a connection that may write would move the log into the very file that is damaged.
    """
    try:
        return _look(path, "ro")
    except sqlite3.Error as error:
        if _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise _unreadable(path, error) from error
    try:
        # The power failed in the first transaction of all, which alone is not in the write-ahead log: SQLite undoes it.
        return _look(path, "rw")
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


def _look(path: Path, mode: str) -> tuple[int, bool]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
    try:
        version, lost_commits = int(connection.execute("PRAGMA user_version").fetchone()[0]), goes_on(path)
        if version <= SCHEMA_VERSION:
            _check(connection, path)
        return version, lost_commits
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises JournalDamaged. Only the integrity check compares the indexes with the rows, as a look-up relies on."""
    connection.execute("PRAGMA ignore_check_constraints=ON")
    problem = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if problem != "ok":
        raise JournalDamaged(f"the journal {path} is damaged: {' '.join(problem.split())}")


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
