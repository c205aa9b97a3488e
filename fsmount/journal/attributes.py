"""What the remote cannot hold, a row a path: modes, owners, times, directories without files, litter.

Invariant: a row without a kind only decorates a file that lives elsewhere, and may go when that file goes.
"""

from __future__ import annotations

import sqlite3

from fsmount.journal.part import Part, body_columns
from fsmount.journal.rows import body_of
from fsmount.model import Kind, LocalNode, RemotePath, Revision, parent_of


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
                " body_size, body_digest, body_draft) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                node.path, parent_of(node.path), node.kind, node.mode, node.uid, node.gid, node.mtime,
                node.mtime_revision, *body_columns(node.body),
            )  # fmt: skip
            if before is not None and before.body != node.body:
                self._release(before.body)

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
    )
