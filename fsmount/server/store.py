"""The server's files, ops and events in one SQLite database.

Invariant: a change is its file, its directories, its op, its event and its revision, in one
transaction; revisions, op ids and event ids only grow, over all workspaces.

Everything here is synchronous, for one thread. WAL with `synchronous=NORMAL`: an answered write
survives `kill -9` of the process, not a power cut.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from fsmount.errors import StateError
from fsmount.server.bodies import Bodies, Incoming
from fsmount.server.paths import ancestors, parent, provider
from fsmount.wire.relayfile import ContentIdentity

SCHEMA_VERSION = 1
SECOND = 1_000_000_000
CENTURY = 100 * 365 * 86_400
_NO_EVENT_YET = 2**63 - 1


class RevisionMismatch(Exception):
    """The precondition did not hold; `current` is the file's revision, None when there is no file."""

    def __init__(self, current: str | None) -> None:
        super().__init__(current)
        self.current = current


class UnknownCursor(Exception):
    """The row that the listing should go on after is not in it."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A checked file on its way in. `size` is in bytes of `content` as stored, `byte_size` decoded.

    `semantics` is JSON text; None keeps what the file has. `content` is None where the bytes are a file in `bodies/`.
    """

    path: str
    content: str | None
    encoding: str
    content_type: str
    digest: str
    size: int
    byte_size: int
    semantics: str | None = None


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it lies in the store; `content` is None where its bytes are a file in `bodies/`."""

    path: str
    revision: str
    content_type: str
    encoding: str
    digest: str
    byte_size: int
    updated_at: str
    semantics: str | None
    content: str | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a listing; a directory has only its path."""

    path: str
    revision: str | None
    encoding: str | None
    digest: str | None
    size: int | None
    byte_size: int | None
    updated_at: str | None
    semantics: str | None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a write became."""

    op_id: str
    path: str
    revision: str
    content_type: str | None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `number` orders them."""

    number: int
    type: str
    path: str
    revision: str
    digest: str | None
    origin: str
    provider: str
    correlation_id: str
    at: str


# A file hides the directory of the same path, whose own files are listed all the same. Exactly one
# lower bound for the path, so that a page starts in the index where the last one ended.
_LISTING = """
    SELECT path, revision, encoding, digest, size, byte_size, updated_at, semantics
    FROM file WHERE workspace = :workspace AND {place} AND path {bound} :start
    UNION ALL
    SELECT path, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM directory AS d WHERE workspace = :workspace AND {place} AND path {bound} :start AND path != '/'
        AND NOT EXISTS (SELECT 1 FROM file AS f WHERE f.workspace = d.workspace AND f.path = d.path)
    ORDER BY path LIMIT :limit
"""
_CHILDREN = "parent = :base"
_DESCENDANTS = "path < :beyond AND level <= :deepest"

_INSERT = """
    INSERT INTO file (workspace, path, parent, level, revision, content_type, encoding, digest, size, byte_size,
        updated_at, semantics, content)
    VALUES (:workspace, :path, :parent, :level, :revision, :content_type, :encoding, :digest, :size, :byte_size,
        :updated_at, :semantics, :content)
"""
_UPDATE = """
    UPDATE file SET revision = :revision, content_type = :content_type, encoding = :encoding, digest = :digest,
        size = :size, byte_size = :byte_size, updated_at = :updated_at, content = :content,
        semantics = coalesce(:semantics, semantics)
    WHERE workspace = :workspace AND path = :path
"""
_EVENTS = """
    SELECT id, type, path, revision, digest, origin, provider, correlation_id, at FROM event
    WHERE workspace = :workspace AND id {past} :after AND (:provider IS NULL OR provider = :provider)
    ORDER BY id {order} LIMIT :limit
"""


class Store:
    """One database, with `bodies` beside it. `now` gives UTC nanoseconds since the epoch."""

    def __init__(self, path: Path, now: Callable[[], int]) -> None:
        self._now = now
        self.bodies = Bodies(path.parent / "bodies")
        self._replaced: list[str] = []
        self._adopted: list[str] = []
        # Created here so that it is private whatever the umask; SQLite gives its WAL the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._sql = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._sql.close()
            raise _unusable(path, error) from error
        self.bodies.sweep(self._is_current)

    def _open(self) -> None:
        # Exclusive: a second server on the same directory is refused instead of sharing the ids.
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = NORMAL")
        with self.transaction():
            (version,) = self._sql.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise sqlite3.DatabaseError("it was written by a newer version of fsmount")
            if version == 0:
                for statement in _statements():
                    self._sql.execute(statement)
                self._sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Give the database back."""
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside become durable together, or none of them."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            # SQLite rolls back by itself on some errors, a full disk for one.
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            self._drop_bodies(self._adopted)
            raise
        self._drop_bodies(self._replaced)

    def _drop_bodies(self, revisions: list[str]) -> None:
        for revision in revisions:
            self.bodies.remove(revision)
        self._replaced, self._adopted = [], []

    def _is_current(self, revision: str) -> bool:
        return self._sql.execute("SELECT 1 FROM file WHERE revision = ?", (revision,)).fetchone() is not None

    def check(self, workspace: str, path: str, expected: str) -> str | None:
        """The file's revision, None when there is no file. Raises RevisionMismatch where it is not as `expected`."""
        row = self._sql.execute(
            "SELECT revision FROM file WHERE workspace = ? AND path = ?", (workspace, path)
        ).fetchone()
        current = row[0] if row else None
        matches = {"*": True, "0": current is None}.get(expected, expected == current)
        if not matches:
            raise RevisionMismatch(current)
        return current

    def file(self, workspace: str, path: str) -> StoredFile | None:
        """The file at `path`, with its content."""
        row = self._sql.execute(
            "SELECT path, revision, content_type, encoding, digest, byte_size, updated_at, semantics, content"
            " FROM file WHERE workspace = ? AND path = ?",
            (workspace, path),
        ).fetchone()
        if row is None:
            return None
        stored = StoredFile(**dict(zip(StoredFile.__struct_fields__, row, strict=True)))
        elsewhere = stored.byte_size > 0 and not stored.content
        return msgspec.structs.replace(stored, content=None) if elsewhere else stored

    def put(
        self,
        workspace: str,
        draft: Draft,
        *,
        expected: str,
        correlation_id: str = "",
        identity: ContentIdentity | None = None,
        body: Incoming | None = None,
    ) -> Change:
        """Write a file if it is as `expected`: `*` anything, `0` absent, else that revision.

        `body` has the bytes of a draft without content. To be called in a transaction. Raises RevisionMismatch
        before anything is written.
        """
        found = self.check(workspace, draft.path, expected)
        at = self._now()
        above = ancestors(draft.path)
        change = self._op("put", workspace, draft.path, draft.content_type, correlation_id, at, identity)
        row = {
            **msgspec.structs.asdict(draft),
            "content": draft.content or "",
            "workspace": workspace,
            "parent": above[0],
            "level": len(above),
            "revision": change.revision,
            "updated_at": rfc3339(at),
        }
        self._sql.execute(_UPDATE if found else _INSERT, row)
        if found is None:
            self._enter(workspace, above)
        self._exchange_bodies(found, change.revision, body)
        kind = "file.updated" if found else "file.created"
        self._event(kind, workspace, change, draft.digest, correlation_id, at)
        return change

    def delete(self, workspace: str, path: str, *, expected: str, correlation_id: str = "") -> Change:
        """Delete a file if it is as `expected`; the change's revision is the deletion's own.

        To be called in a transaction. Raises RevisionMismatch before anything is written; an absent
        file never matches.
        """
        found = self.check(workspace, path, expected)
        if found is None:
            raise RevisionMismatch(None)
        at = self._now()
        change = self._op("delete", workspace, path, None, correlation_id, at, None)
        self._sql.execute("DELETE FROM file WHERE workspace = ? AND path = ?", (workspace, path))
        self._leave(workspace, ancestors(path))
        self._exchange_bodies(found, change.revision, None)
        self._event("file.deleted", workspace, change, None, correlation_id, at)
        return change

    def _exchange_bodies(self, before: str | None, now: str, body: Incoming | None) -> None:
        """The new body stands before its row is committed; the old one goes after that."""
        if body is not None:
            self._adopted.append(now)
            self.bodies.adopt(body, now)
        if before is not None:
            self._replaced.append(before)

    def earlier(self, workspace: str, identity: ContentIdentity) -> Change | None:
        """The oldest write of the same kind and key whose time has not run out."""
        row = self._sql.execute(
            "SELECT id, path, revision, content_type FROM op WHERE workspace = ? AND identity_kind = ?"
            " AND identity_key = ? AND (identity_expires IS NULL OR identity_expires > ?) ORDER BY id LIMIT 1",
            (workspace, identity.kind, identity.key, self._now()),
        ).fetchone()
        return row and Change(op_id=f"op_{row[0]}", path=row[1], revision=row[2], content_type=row[3])

    def listing(self, workspace: str, base: str, *, depth: int, after: str | None, limit: int) -> list[Row]:
        """At most `limit` rows below `base`, `depth` levels deep, bytewise by path, those past `after`.

        Raises UnknownCursor when `after` is no row of this listing.
        """
        first = base if base == "/" else base + "/"
        place = _CHILDREN if depth == 1 else _DESCENDANTS
        query: dict[str, str | int] = {
            "workspace": workspace,
            "base": base,
            "start": after or first,
            "beyond": first[:-1] + "0",
            "deepest": len(ancestors(base)) + depth,
            "limit": limit,
        }
        if after is not None and (after < first or not self._rows(place, "=", query)):
            raise UnknownCursor(after)
        rows = self._rows(place, ">=" if after is None else ">", query)
        return [Row(**dict(zip(Row.__struct_fields__, row, strict=True))) for row in rows]

    def total(self, workspace: str, base: str) -> int:
        """How many files lie below `base`, however deep."""
        row = self._sql.execute(
            "SELECT files FROM directory WHERE workspace = ? AND path = ?", (workspace, base)
        ).fetchone()
        return row[0] if row else 0

    def events(
        self, workspace: str, *, after: int | None, newest_first: bool, provider: str | None, limit: int
    ) -> list[StoredEvent]:
        """At most `limit` events past the number `after`, in the order asked for."""
        past, order, end = ("<", "DESC", _NO_EVENT_YET) if newest_first else (">", "ASC", 0)
        query = {"workspace": workspace, "after": end if after is None else after, "provider": provider, "limit": limit}
        rows = self._sql.execute(_EVENTS.format(past=past, order=order), query)
        return [StoredEvent(**dict(zip(StoredEvent.__struct_fields__, row, strict=True))) for row in rows]

    def has_event(self, workspace: str, number: int) -> bool:
        """Whether that event is this workspace's."""
        found = self._sql.execute("SELECT 1 FROM event WHERE id = ? AND workspace = ?", (number, workspace)).fetchone()
        return found is not None

    def _rows(self, place: str, bound: str, query: Mapping[str, str | int]) -> list[tuple[Any, ...]]:
        return self._sql.execute(_LISTING.format(place=place, bound=bound), query).fetchall()

    def _op(
        self,
        kind: str,
        workspace: str,
        path: str,
        content_type: str | None,
        correlation_id: str,
        at: int,
        identity: ContentIdentity | None,
    ) -> Change:
        (newest,) = self._sql.execute("UPDATE revision SET newest = newest + 1 RETURNING newest").fetchone()
        known: tuple[str | None, str | None, int | None] = (None, None, None)
        if identity is not None:
            lifetime = identity.ttl_seconds or 0
            expires = at + lifetime * SECOND if 0 < lifetime < CENTURY else None
            known = (identity.kind, identity.key, expires)
        op = self._sql.execute(
            "INSERT INTO op (workspace, path, kind, revision, content_type, correlation_id, at, identity_kind,"
            " identity_key, identity_expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (workspace, path, kind, f"rev_{newest}", content_type, correlation_id, at, *known),
        )
        return Change(op_id=f"op_{op.lastrowid}", path=path, revision=f"rev_{newest}", content_type=content_type)

    def _enter(self, workspace: str, above: list[str]) -> None:
        self._sql.executemany(
            "INSERT INTO directory (workspace, path, parent, level, files) VALUES (?, ?, ?, ?, 1)"
            " ON CONFLICT DO UPDATE SET files = files + 1",
            [(workspace, path, parent(path), len(above) - depth) for depth, path in enumerate(above, 1)],
        )

    def _leave(self, workspace: str, above: list[str]) -> None:
        places = [(workspace, path) for path in above]
        self._sql.executemany("UPDATE directory SET files = files - 1 WHERE workspace = ? AND path = ?", places)
        self._sql.executemany("DELETE FROM directory WHERE workspace = ? AND path = ? AND files = 0", places)

    def _event(
        self, kind: str, workspace: str, change: Change, digest: str | None, correlation_id: str, at: int
    ) -> None:
        self._sql.execute(
            "INSERT INTO event (workspace, type, path, revision, digest, origin, provider, correlation_id, at)"
            " VALUES (?, ?, ?, ?, ?, 'agent_write', ?, ?, ?)",
            (workspace, kind, change.path, change.revision, digest, provider(change.path), correlation_id, rfc3339(at)),
        )


def rfc3339(at: int) -> str:
    """`at` (UTC nanoseconds since the epoch) as the API writes times, without trailing zeros."""
    seconds, rest = divmod(at, SECOND)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _statements() -> Iterator[str]:
    # executescript would commit the transaction that makes the schema appear whole or not at all.
    statement = ""
    for line in files("fsmount.server").joinpath("schema.sql").read_text(encoding="utf-8").splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _unusable(path: Path, error: sqlite3.DatabaseError) -> StateError:
    if "locked" in str(error):
        return StateError(f"{path} is in use by another server", hint="stop that one, or give another --data")
    return StateError(f"cannot use {path}: {error}", hint="move it away to start with no files, or give another --data")
