"""What the remote cannot hold: modes, owners, times, directories without files, links, litter; extended attributes.

Invariant: a row without a kind only decorates a file that lives elsewhere, and may go when that file goes.
"""

from __future__ import annotations

import sqlite3

from fsmount.journal.part import Part, body_columns
from fsmount.journal.rows import body_of
from fsmount.model import Kind, LocalNode, RemotePath, Revision, parent_of

_AT_OR_BELOW = "(path = ?1 OR path > ?1 || '/' AND path < ?1 || '0')"


class LocalNodes(Part):
    """Implements ports.Attributes."""

    def node(self, path: RemotePath) -> LocalNode | None:
        row = self._db.one("SELECT * FROM node WHERE path = ?", path)
        return None if row is None else _node_of(row)

    def nodes_in(self, directory: RemotePath) -> list[LocalNode]:
        rows = self._db.all("SELECT * FROM node WHERE parent = ? AND path <> '/'", directory)
        return [_node_of(row) for row in rows]

    def keep(self, node: LocalNode) -> None:
        with self._db.transaction():
            before = self.node(node.path)
            self._db.run(
                "INSERT OR REPLACE INTO node (path, parent, kind, mode, uid, gid, mtime, mtime_revision,"
                " body_size, body_digest, body_draft, target, made_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                node.path, parent_of(node.path), node.kind, node.mode, node.uid, node.gid, node.mtime,
                node.mtime_revision, *body_columns(node.body), node.target, node.made_at,
            )  # fmt: skip
            if before is not None and before.body != node.body:
                self._release(before.body)

    def xattrs(self, path: RemotePath) -> dict[str, bytes]:
        rows = self._db.all("SELECT name, value FROM xattr WHERE path = ? ORDER BY name", path)
        return {str(row["name"]): bytes(row["value"]) for row in rows}

    def keep_xattr(self, path: RemotePath, name: str, value: bytes | None) -> None:
        with self._db.transaction():
            if value is None:
                self._db.run("DELETE FROM xattr WHERE path = ? AND name = ?", path, name)
            else:
                self._db.run("INSERT OR REPLACE INTO xattr (path, name, value) VALUES (?,?,?)", path, name, value)

    def rename_nodes(self, old: RemotePath, new: RemotePath) -> None:
        with self._db.transaction():
            for row in self._db.all(f"DELETE FROM node WHERE {_AT_OR_BELOW} RETURNING *", new):  # noqa: S608
                self._release(body_of(row))
            self._db.run(f"DELETE FROM xattr WHERE {_AT_OR_BELOW}", new)  # noqa: S608
            for table in ("node", "xattr", "draft"):
                self._db.run(
                    f"UPDATE {table} SET path = ?2 || substr(path, length(?1) + 1) WHERE {_AT_OR_BELOW}",  # noqa: S608
                    old, new,
                )  # fmt: skip
            self._db.run(
                "UPDATE node SET parent = CASE path WHEN ?1 THEN ?2 ELSE ?1 || substr(parent, length(?3) + 1) END"  # noqa: S608
                f" WHERE {_AT_OR_BELOW}", new, parent_of(new), old,
            )  # fmt: skip

    def forget(self, path: RemotePath) -> None:
        with self._db.transaction():
            self._forget_node(path)


def _node_of(row: sqlite3.Row) -> LocalNode:
    return LocalNode(
        path=RemotePath(row["path"]),
        kind=None if row["kind"] is None else Kind(row["kind"]),
        mode=row["mode"],
        uid=row["uid"],
        gid=row["gid"],
        mtime=row["mtime"],
        mtime_revision=None if row["mtime_revision"] is None else Revision(row["mtime_revision"]),
        body=body_of(row),
        target=row["target"],
        made_at=row["made_at"],
    )
