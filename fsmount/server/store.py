"""The server's files, ops and events in one SQLite database.

Invariant: a change is its file, its directories, its op, its event and its revision, in one
transaction; revisions, op ids and event ids only grow, over all workspaces.

Everything here is synchronous, for one thread. WAL with `synchronous=NORMAL`: an answered write
survives `kill -9` of the process, not a power cut.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fsmount.errors import StateError
from fsmount.server.acl import is_too_long
from fsmount.server.bodies import Bodies, Incoming
from fsmount.server.guards import Guards
from fsmount.server.listings import Listings
from fsmount.server.oplog import OpLog
from fsmount.server.paths import ancestors, parent, provider
from fsmount.server.records import Change, Draft, Inline, MarkerTooLong, RevisionMismatch, StoredEvent, StoredFile
from fsmount.server.schema import bring_up_to_date, is_older
from fsmount.wire.relayfile import ContentIdentity

SECOND = 1_000_000_000
CENTURY = 100 * 365 * 86_400
_NO_EVENT_YET = 2**63 - 1


_INSERT = """
    INSERT INTO file (workspace, path, parent, level, revision, content_type, encoding, digest, size, byte_size,
        updated_at, semantics, object_id, content)
    VALUES (:workspace, :path, :parent, :level, :revision, :content_type, :encoding, :digest, :size, :byte_size,
        :updated_at, :semantics, NULL, :content)
    RETURNING semantics
"""
_UPDATE = """
    UPDATE file SET revision = :revision, content_type = :content_type, encoding = :encoding, digest = :digest,
        size = :size, byte_size = :byte_size, updated_at = :updated_at, content = :content,
        semantics = coalesce(:semantics, semantics)
    WHERE workspace = :workspace AND path = :path
    RETURNING semantics
"""
_RENAME = """
    UPDATE file SET path = :to, parent = :parent, level = :level, revision = :revision, updated_at = :updated_at,
        object_id = :object_id
    WHERE workspace = :workspace AND path = :path
    RETURNING digest, content_type, semantics, content, encoding
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
        self._watchers: list[Callable[[], None]] = []
        self.bodies = Bodies(path.parent / "bodies")
        self._replaced: list[str] = []
        self._adopted: list[str] = []
        # Created here so that it is private whatever the umask; SQLite gives its WAL the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._sql = sqlite3.connect(path, isolation_level=None, timeout=1)
        self.ops = OpLog(self._sql, now)
        self.guards = Guards(self._sql)
        self.listings = Listings(self._sql)
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
            if is_older(self._sql):
                bring_up_to_date(self._sql)
                self.ops.fill()
                self.guards.fill()

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called after every transaction that was kept; it must not block."""
        self._watchers.append(changed)

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
        for changed in self._watchers:
            changed()

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
            "SELECT path, revision, content_type, encoding, digest, byte_size, updated_at, semantics, object_id,"
            " content FROM file WHERE workspace = ? AND path = ?",
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
        or MarkerTooLong before anything is written.
        """
        found = self.check(workspace, draft.path, expected)
        if is_too_long(draft.path, draft.byte_size):
            raise MarkerTooLong(draft.path)
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
        ((semantics,),) = self._sql.execute(_UPDATE if found else _INSERT, row).fetchall()
        self.guards.keep(workspace, draft.path, semantics, draft.content or "", draft.encoding)
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
        self._remove(workspace, change, correlation_id, at)
        return change

    def discard(self, workspace: str, path: str, *, correlation_id: str) -> None:
        """Take a file away by the server's own doing: there is an event, and no op that a provider would follow.

        To be called in a transaction, for a file that exists.
        """
        change = Change(op_id="", path=path, revision=self._next_revision(), content_type=None)
        self._remove(workspace, change, correlation_id, self._now(), origin="system")

    def rename(self, workspace: str, path: str, to: str, *, object_id: str, correlation_id: str) -> None:
        """Give a file the path and the name that its provider has for it, as `discard` does.

        To be called in a transaction, for a file that exists and a path where there is none and which is not too long
        for it. Both events carry one revision: it is one step of one file.
        """
        at, above = self._now(), ancestors(to)
        row = {
            "workspace": workspace,
            "path": path,
            "to": to,
            "parent": above[0],
            "level": len(above),
            "revision": self._next_revision(),
            "updated_at": rfc3339(at),
            "object_id": object_id,
        }
        before = self.check(workspace, path, "*")
        ((digest, content_type, semantics, content, encoding),) = self._sql.execute(_RENAME, row).fetchall()
        self._rename_body(before, str(row["revision"]))
        self._leave(workspace, ancestors(path))
        self._enter(workspace, above)
        self.guards.forget(workspace, path)
        self.guards.keep(workspace, to, semantics, content, encoding)
        for kind, place, what in (("file.deleted", path, None), ("file.created", to, digest)):
            change = Change(op_id="", path=place, revision=str(row["revision"]), content_type=content_type)
            self._event(kind, workspace, change, what, correlation_id, at, origin="system")

    def _rename_body(self, before: str | None, now: str) -> None:
        """Both names stand until the row is committed: whichever it has then finds its bytes."""
        if before is not None and self.bodies.link(before, now):
            self._adopted.append(now)
            self._replaced.append(before)

    def report_failure(self, workspace: str, change: Change, *, correlation_id: str) -> None:
        """Tell that a write, made and answered, failed at its provider. To be called in a transaction."""
        self._event("writeback.failed", workspace, change, None, correlation_id, self._now(), origin="system")

    def digest_at(self, workspace: str, path: str, revision: str) -> str | None:
        """The digest that the file had at that revision, however long ago."""
        row = self._sql.execute(
            "SELECT digest FROM event WHERE revision = ? AND workspace = ? AND path = ? AND digest IS NOT NULL",
            (revision, workspace, path),
        ).fetchone()
        return str(row[0]) if row else None

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

    def events(
        self, workspace: str, *, after: int | None, newest_first: bool, provider: str | None, limit: int
    ) -> list[StoredEvent]:
        """At most `limit` events past the number `after`, in the order asked for."""
        past, order, end = ("<", "DESC", _NO_EVENT_YET) if newest_first else (">", "ASC", 0)
        query = {"workspace": workspace, "after": end if after is None else after, "provider": provider, "limit": limit}
        rows = self._sql.execute(_EVENTS.format(past=past, order=order), query)
        return [StoredEvent(**dict(zip(StoredEvent.__struct_fields__, row, strict=True))) for row in rows]

    def head(self, workspace: str, back: int = 0) -> int:
        """The number of the newest event but `back`; 0 where there are not so many."""
        row = self._sql.execute(
            "SELECT id FROM event WHERE workspace = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (workspace, back)
        ).fetchone()
        return row[0] if row else 0

    def has_more_events(self, workspace: str, number: int, most: int) -> bool:
        """Whether more than `most` events come after `number`."""
        found = self._sql.execute(
            "SELECT 1 FROM event WHERE workspace = ? AND id > ? LIMIT 1 OFFSET ?", (workspace, number, most)
        ).fetchone()
        return found is not None

    def inline(self, workspace: str, path: str, revision: str, most: int) -> Inline | None:
        """The content of a file that still stands at `revision` and is stored in at most `most` bytes."""
        row = self._sql.execute(
            "SELECT content, encoding, content_type FROM file"
            " WHERE workspace = ? AND path = ? AND revision = ? AND size <= ? AND (content != '' OR size = 0)",
            (workspace, path, revision, most),
        ).fetchone()
        return row and Inline(content=row[0], encoding=row[1], content_type=row[2])

    def has_event(self, workspace: str, number: int) -> bool:
        """Whether that event is this workspace's."""
        found = self._sql.execute("SELECT 1 FROM event WHERE id = ? AND workspace = ?", (number, workspace)).fetchone()
        return found is not None

    def _remove(
        self, workspace: str, change: Change, correlation_id: str, at: int, *, origin: str = "agent_write"
    ) -> None:
        gone = self._sql.execute(
            "DELETE FROM file WHERE workspace = ? AND path = ? RETURNING revision", (workspace, change.path)
        )
        self._replaced += [revision for (revision,) in gone.fetchall()]
        self.guards.forget(workspace, change.path)
        self._leave(workspace, ancestors(change.path))
        self._event("file.deleted", workspace, change, None, correlation_id, at, origin=origin)

    def _next_revision(self) -> str:
        (newest,) = self._sql.execute("UPDATE revision SET newest = newest + 1 RETURNING newest").fetchone()
        return f"rev_{newest}"

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
        revision = self._next_revision()
        known: tuple[str | None, str | None, int | None] = (None, None, None)
        if identity is not None:
            lifetime = identity.ttl_seconds or 0
            expires = at + lifetime * SECOND if 0 < lifetime < CENTURY else None
            known = (identity.kind, identity.key, expires)
        op = self._sql.execute(
            "INSERT INTO op (workspace, path, kind, revision, content_type, correlation_id, at, provider,"
            " identity_kind, identity_key, identity_expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (workspace, path, kind, revision, content_type, correlation_id, at, provider(path), *known),
        )
        return Change(op_id=f"op_{op.lastrowid}", path=path, revision=revision, content_type=content_type)

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
        self,
        kind: str,
        workspace: str,
        change: Change,
        digest: str | None,
        correlation_id: str,
        at: int,
        *,
        origin: str = "agent_write",
    ) -> None:
        said = (change.path, change.revision, digest, origin, provider(change.path), correlation_id, rfc3339(at))
        self._sql.execute(
            "INSERT INTO event (workspace, type, path, revision, digest, origin, provider, correlation_id, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (workspace, kind, *said),
        )


def rfc3339(at: int) -> str:
    """`at` (UTC nanoseconds since the epoch) as the API writes times, without trailing zeros."""
    seconds, rest = divmod(at, SECOND)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _unusable(path: Path, error: sqlite3.DatabaseError) -> StateError:
    if "locked" in str(error):
        return StateError(f"{path} is in use by another server", hint="stop that one, or give another --data")
    return StateError(f"cannot use {path}: {error}", hint="move it away to start with no files, or give another --data")
