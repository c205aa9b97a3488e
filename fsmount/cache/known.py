"""The listings of former runs: what a mount that starts offline shows, marked as old as it is.

    listings.db     a row a directory: its entries as JSON, a checksum, and when the remote confirmed them

Invariant: what is recalled is what was kept for this remote, or nothing; and no error of the disk or the database
reaches a caller. Losing any of it loses nothing.

Threads: ``has`` is for the loop and touches neither the disk nor a lock. ``recall`` and ``keep`` block, in a thread
each: they have a connection and a lock of their own, so that what waits for a slow disk to write keeps no reader
waiting.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec

from fsmount.model import Entry, RemotePath

VERSION = 1
MOST_NAMES = 20_000
"""Names of a directory that is kept; writing a larger one down again and again costs more than it is worth."""
MOST_DIRECTORIES = 50_000
_SCHEMA = """
CREATE TABLE remote (name TEXT NOT NULL) STRICT;
CREATE TABLE listing (
    directory TEXT PRIMARY KEY, at REAL NOT NULL, checksum INTEGER NOT NULL, entries BLOB NOT NULL
) STRICT;
"""


class KnownListings:
    """The file in ``directory``, which is there; what another remote left in it goes. Never raises."""

    def __init__(self, directory: Path, remote: str) -> None:
        self._path = directory / "listings.db"
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._kept: set[str] = set()
        with suppress(sqlite3.Error, OSError):
            self._open(remote)
            return
        self._drop()
        with suppress(sqlite3.Error, OSError):
            self._open(remote)

    def has(self, directory: RemotePath) -> bool:
        """Whether something is kept; it may turn out to be damaged."""
        return directory in self._kept

    def recall(self, directory: RemotePath) -> tuple[list[Entry], float] | None:
        """The entries and when they were true (UTC epoch seconds); None where nothing intact is known. Blocks."""
        row = None
        with self._reading, suppress(sqlite3.Error):
            if self._reader is not None:
                query = "SELECT entries, checksum, at FROM listing WHERE directory = ?"
                row = self._reader.execute(query, (directory,)).fetchone()
        if row is None or zlib.crc32(row[0]) != row[1]:
            return None
        try:
            return msgspec.json.decode(row[0], type=list[Entry]), row[2]
        except msgspec.DecodeError:
            return None

    def keep(self, listings: Mapping[RemotePath, Sequence[Entry]], at: float) -> None:
        """Replaces what is known of these directories; true at ``at``. Blocks."""
        rows = [row for directory, entries in listings.items() if (row := _row(directory, entries, at)) is not None]
        with self._writing, suppress(sqlite3.Error):
            if self._writer is not None:
                with self._writer:
                    self._writer.executemany("INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?)", rows)
                self._kept.update(directory for directory, *_ in rows)

    def close(self) -> None:
        """Waits for what is being read and written; a second call does nothing."""
        with self._reading, suppress(sqlite3.Error):
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
        with self._writing, suppress(sqlite3.Error):
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def _open(self, remote: str) -> None:
        with ExitStack() as opened:
            writer, reader = (
                opened.enter_context(closing(sqlite3.connect(self._path, timeout=0, check_same_thread=False)))
                for _ in range(2)
            )
            self._prepare(writer, remote)
            reader.execute("PRAGMA query_only = ON")
            self._kept = {directory for (directory,) in reader.execute("SELECT directory FROM listing")}
            self._writer, self._reader = writer, reader
            opened.pop_all()

    def _prepare(self, database: sqlite3.Connection, remote: str) -> None:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = WAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"version {version}, not {VERSION}")
        with database:
            known = database.execute("SELECT name FROM remote").fetchone()
            if known is None or known[0] != remote:
                database.execute("DELETE FROM listing")
                database.execute("DELETE FROM remote")
                database.execute("INSERT INTO remote VALUES (?)", (remote,))
            oldest = "SELECT directory FROM listing ORDER BY at DESC LIMIT -1 OFFSET ?"
            database.execute(f"DELETE FROM listing WHERE directory IN ({oldest})", (MOST_DIRECTORIES,))  # noqa: S608

    def _drop(self) -> None:
        """A file that cannot be used gives way to an empty one."""
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()


def _row(directory: RemotePath, entries: Sequence[Entry], at: float) -> tuple[str, float, int, bytes] | None:
    """None for what cannot be written down: too many names, or one that is no text."""
    if len(entries) > MOST_NAMES:
        return None
    try:
        directory.encode()
        encoded = msgspec.json.encode(entries)
    except UnicodeEncodeError:
        return None
    return directory, at, zlib.crc32(encoded), encoded
