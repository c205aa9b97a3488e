"""The cache's index in SQLite: which blocks of which revision are held.

Invariant: a block is listed only after its bytes were written, with the checksum of those bytes; and an exact size
stays listed after the blocks are gone. Entries used lately are kept in memory, a bounded number of them.
"""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BLOCK = 128 * 1024
"""Bytes of a block: what the kernel asks for at once when it reads ahead."""
VERSION = 1
_HOT = 8192
_FEW_BLOCKS = 64
_TOUCHED = 512
_TOGETHER = 64
_SIZES = 500_000
_NOT_HELD = -1

_SCHEMA = """
CREATE TABLE file (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, total INTEGER NOT NULL CHECK (total >= 0),
    total_checksum INTEGER NOT NULL, held INTEGER NOT NULL CHECK (held >= 0), used INTEGER NOT NULL
) STRICT;
CREATE TABLE block (
    file INTEGER NOT NULL, number INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_by_use ON file (used) WHERE held > 0;
CREATE TABLE life (open INTEGER NOT NULL) STRICT;
INSERT INTO life VALUES (0);
"""


class Held:
    """One revision of one file: its exact size in bytes and how many bytes of it are here."""

    __slots__ = ("checksums", "held", "key", "row", "total")

    def __init__(self, row: int, key: bytes, total: int, held: int) -> None:
        self.row = row
        self.key = key
        self.total = total
        self.held = held
        self.checksums: array[int] | None = None
        """By block, -1 where it is not held; None for a file of many blocks, whose checksums stay on disk."""


class Index:
    """The index at ``path``, made if it is not there. Every method raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._hot: OrderedDict[bytes, Held] = OrderedDict()
        self._touched: dict[int, int] = {}
        self._changes = 0
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    @property
    def was_open(self) -> bool:
        """Whether the last user of this index did not close it: there may be blocks that it does not list."""
        return self._was_open

    def find(self, key: bytes) -> Held | None:
        """What is known of one revision; counts as a use of it."""
        held = self._hot.get(key)
        if held is None:
            held = self._load(key)
            if held is None:
                return None
        self._hot.move_to_end(key)
        self._tick += 1
        self._touched[held.row] = self._tick
        if len(self._touched) > _TOUCHED:
            self._save_touched()
        return held

    def add(self, key: bytes, total: int) -> Held:
        """Lists a revision of ``total`` bytes, of which nothing is held, in place of one of another size."""
        self._tick += 1
        with self._change():
            row = self._db.execute(
                "INSERT OR REPLACE INTO file (key, total, total_checksum, held, used) VALUES (?, ?, ?, 0, ?)",
                (key, total, _total_checksum(key, total), self._tick),
            ).lastrowid
        return self._remember(Held(row or 0, key, total, 0), ())

    def checksums(self, held: Held, first: int, stop: int) -> Sequence[int] | None:
        """Those of blocks ``first`` … ``stop - 1``, or None where not all of them are held."""
        if held.checksums is not None:
            few = held.checksums[first:stop]
            return None if _NOT_HELD in few else few
        rows = self._db.execute(
            "SELECT checksum FROM block WHERE file = ? AND number >= ? AND number < ? ORDER BY number",
            (held.row, first, stop),
        ).fetchall()
        return [row[0] for row in rows] if len(rows) == stop - first else None

    def missing(self, held: Held, first: int, stop: int) -> int:
        """How many bytes of those blocks are not held."""
        if held.checksums is not None:
            present = [number for number in range(first, stop) if held.checksums[number] != _NOT_HELD]
        else:
            present = [number for number, _ in self._rows(held, first, stop)]
        wanted = min(stop * BLOCK, held.total) - first * BLOCK
        return wanted - sum(min(BLOCK, held.total - number * BLOCK) for number in present)

    def keep(self, held: Held, first: int, checksums: Sequence[int], growth: int) -> None:
        """Lists blocks from ``first`` on, whose bytes are written; ``growth`` bytes of them were not held before."""
        with self._change():
            self._db.executemany(
                "INSERT OR REPLACE INTO block (file, number, checksum) VALUES (?, ?, ?)",
                [(held.row, first + number, checksum) for number, checksum in enumerate(checksums)],
            )
            self._db.execute("UPDATE file SET held = held + ?, used = ? WHERE id = ?", (growth, self._tick, held.row))
        held.held += growth
        if held.checksums is not None:
            held.checksums[first : first + len(checksums)] = array("q", checksums)

    def drop(self, files: Sequence[Held]) -> None:
        """Lists no block of these files any more; their sizes stay known."""
        with self._change():
            self._db.executemany("DELETE FROM block WHERE file = ?", [(held.row,) for held in files])
            self._db.executemany("UPDATE file SET held = 0 WHERE id = ?", [(held.row,) for held in files])
        for held in files:
            self._hot.pop(held.key, None)

    def oldest(self, count: int) -> list[Held]:
        """The files with blocks that were used longest ago, oldest first."""
        self._save_touched()
        rows = self._db.execute("SELECT id, key, total, held FROM file WHERE held > 0 ORDER BY used LIMIT ?", (count,))
        return [Held(*row) for row in rows]

    def used(self) -> int:
        """Bytes held by all files; reads every entry."""
        total: int = self._db.execute("SELECT coalesce(sum(held), 0) FROM file WHERE held > 0").fetchone()[0]
        return total

    def lists(self, key: bytes) -> bool:
        """Whether any block of that key is held; no use of it."""
        return self._db.execute("SELECT 1 FROM file WHERE key = ? AND held > 0", (key,)).fetchone() is not None

    def commit(self) -> None:
        """From here on a crash loses nothing that was listed before."""
        self._changes = 0
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def recover(self) -> None:
        """After an error: forgets what was not committed."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._changes = 0
        self._hot.clear()
        self._touched.clear()

    def close(self) -> None:
        """Saves everything."""
        try:
            self._save_touched()
            self._db.execute("UPDATE life SET open = 0")
            self.commit()
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Closes without saving: the database is damaged."""
        self._db.close()

    def _prepare(self) -> None:
        # A cache may lose its last seconds, so nothing waits for the disk; WAL keeps kill -9 from damaging it.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"the cache's index has version {version}, not {VERSION}")
        self._was_open = bool(self._db.execute("SELECT open FROM life").fetchone()[0])
        self._db.execute("UPDATE life SET open = 1")
        self._tick: int = self._db.execute("SELECT coalesce(max(used), 0) FROM file").fetchone()[0]
        self._db.execute(
            "DELETE FROM file WHERE id IN (SELECT id FROM file WHERE held = 0 ORDER BY used"
            " LIMIT max(0, (SELECT count(*) FROM file) - ?))",
            (_SIZES,),
        )

    def _load(self, key: bytes) -> Held | None:
        row = self._db.execute("SELECT id, total, held, total_checksum FROM file WHERE key = ?", (key,)).fetchone()
        if row is None or row[3] != _total_checksum(key, row[1]):
            return None
        held = Held(row[0], key, row[1], row[2])
        few = held.held > 0 and held.total <= _FEW_BLOCKS * BLOCK
        return self._remember(held, self._rows(held, 0, _FEW_BLOCKS) if few else ())

    def _remember(self, held: Held, rows: Sequence[tuple[int, int]]) -> Held:
        blocks = -(-held.total // BLOCK)
        if blocks <= _FEW_BLOCKS:
            held.checksums = array("q", [_NOT_HELD]) * blocks
            for number, checksum in rows:
                if number < blocks:
                    held.checksums[number] = checksum
        self._hot[held.key] = held
        if len(self._hot) > _HOT:
            self._hot.popitem(last=False)
        return held

    def _rows(self, held: Held, first: int, stop: int) -> Sequence[tuple[int, int]]:
        return self._db.execute(
            "SELECT number, checksum FROM block WHERE file = ? AND number >= ? AND number < ?", (held.row, first, stop)
        ).fetchall()

    def _save_touched(self) -> None:
        touched, self._touched = self._touched, {}
        with self._change():
            self._db.executemany(
                "UPDATE file SET used = ? WHERE id = ?", [(tick, row) for row, tick in touched.items()]
            )

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Changes are committed together: a commit each would cost more than writing a small file."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        yield
        self._changes += 1
        if self._changes >= _TOGETHER:
            self.commit()


def _total_checksum(key: bytes, total: int) -> int:
    """SQLite's pages bear no checksum, and a size that is wrong would cut a file."""
    return zlib.crc32(b"%s %d" % (key, total))
