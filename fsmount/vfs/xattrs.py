"""Extended attributes: those that programs set, and ``user.relay.*``, which tell how a file stands.

Invariant: an attribute of a program is kept under its path until the name goes; one of ours is made anew at each look,
and only ``content_type`` and ``base`` can be set.
"""

from __future__ import annotations

import errno
import re

from fsmount.connection import Connection
from fsmount.errors import FileError
from fsmount.model import (
    ConnectionState,
    Kind,
    OpKind,
    Reason,
    Record,
    RemotePath,
    State,
    content_type_of,
    name_of,
    parent_of,
)  # fmt: skip
from fsmount.ports import Clock, EventLog
from fsmount.vfs.inodes import Node
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.tree import Tree

OURS = "user.relay."
CONTENT_TYPE = "user.relay.content_type"
BASE = "user.relay.base"
THEIRS = b"theirs"
KEPT = ("user.", "trusted.")
"""What programs may set; the other name spaces are the kernel's to understand, and it asks nobody but itself."""
_MEDIA_TYPE = re.compile(r"[!#$&^_.+\-0-9A-Za-z]+/[!#$&^_.+\-0-9A-Za-z]+(\s*;[ -~]*)?")


def content_type(ledger: Ledger, path: RemotePath) -> str:
    """What the next put of ``path`` says that it brings: what a program set, else what the name tells."""
    chosen = ledger.xattrs(path).get(CONTENT_TYPE)
    return content_type_of(path) if chosen is None else chosen.decode()


class ExtendedAttributes:
    """Those of one mount. ENODATA is raised where there is none of that name."""

    def __init__(self, ledger: Ledger, connection: Connection, clock: Clock, log: EventLog, tree: Tree) -> None:
        self._ledger = ledger
        self._connection = connection
        self._clock = clock
        self._log = log
        self._tree = tree

    # looking

    def get(self, node: Node, name: str) -> bytes:
        """One value; raises FileError ENODATA, EOPNOTSUPP for a name space that is not kept here."""
        if not name.startswith(KEPT):
            raise FileError(errno.EOPNOTSUPP, name)
        found = None
        if name.startswith(OURS):
            found = self._ours(node).get(name)
        elif not node.detached:
            found = self._ledger.xattrs(self._tree.path(node)).get(name)
        if found is None:
            raise FileError(errno.ENODATA, name)
        return found

    def names(self, node: Node) -> list[str]:
        """Of what programs set. Ours are found by their names only: who copies a file with its attributes (rsync -X, a
        backup) would try to set them elsewhere, and fail here.
        """
        return [] if node.detached else sorted(self._ledger.xattrs(self._tree.path(node)))

    def _ours(self, node: Node) -> dict[str, bytes]:
        if node.detached or node.parent is None:
            return {}
        path = self._tree.path(node)
        record = self._ledger.shown(path)
        base = None if node.shown is None else node.shown.base.revision
        found = {
            "state": self._state(node, path, record),
            "stale": str(self._stale(node, path)),
            "revision": base,
            "base": base,
            "op": None if record is None else record.op.op_id,
            "content_type": self._content_type(path, record),
        }
        return {OURS + name: value.encode() for name, value in found.items() if value is not None}

    def _state(self, node: Node, path: RemotePath, record: Record | None) -> str:
        draft = node.draft
        if self._is_local(node, path):
            return "local"
        if draft is not None and (draft.dirty or not draft.journalled):
            return "draft"
        if record is None:
            return "clean"
        if record.state is State.DEAD and record.reason is Reason.CONFLICT:
            return "conflict"
        return str(record.state)

    def _is_local(self, node: Node, path: RemotePath) -> bool:
        """Whether it is on this mount alone, and stays so."""
        if node.kind is not Kind.DIRECTORY:
            return self._tree.is_local(node)
        return self._tree.listings.entry(path) is None and not self._ledger.implies_directory(path)

    def _stale(self, node: Node, path: RemotePath) -> int:
        """Seconds since the remote last confirmed what is shown; 0 while that is current, or ours alone."""
        listing = self._tree.listings.held(parent_of(path))
        if listing is None or self._is_local(node, path):
            return 0
        offline = self._connection.state is ConnectionState.OFFLINE
        if not offline and self._tree.listings.fresh(parent_of(path), name_of(path)) is not None:
            return 0
        return max(0, int(self._clock.monotonic() - listing.confirmed_at))

    def _content_type(self, path: RemotePath, record: Record | None) -> str | None:
        chosen = self._ledger.xattrs(path).get(CONTENT_TYPE)
        if chosen is not None:
            return chosen.decode()
        if record is not None and record.op.target == path and record.op.content_type:
            return record.op.content_type
        entry = self._tree.listings.entry(path)
        return None if entry is None else entry.content_type or None

    # changing

    def set(self, node: Node, name: str, value: bytes) -> None:
        """Raises FileError: EOPNOTSUPP for a name space that is not kept here, EPERM for what only tells, EINVAL for
        what makes no sense, ENOENT for a file without a name.
        """
        self._settable(node, name)
        path = self._tree.path(node)
        if name == BASE:
            self._accept_theirs(node, path, value)
            return
        if name == CONTENT_TYPE:
            self._choose_content_type(node, path, value)
            return
        self._ledger.keep_xattr(path, name, value)

    def remove(self, node: Node, name: str) -> None:
        """Raises FileError as ``set`` does, ENODATA where there is none."""
        self._settable(node, name)
        path = self._tree.path(node)
        if name == BASE:
            raise FileError(errno.EPERM, f"{name} tells what is so")
        if name not in self._ledger.xattrs(path):
            raise FileError(errno.ENODATA, name)
        self._ledger.keep_xattr(path, name, None)

    def _settable(self, node: Node, name: str) -> None:
        if not name.startswith(KEPT):
            raise FileError(errno.EOPNOTSUPP, name)
        if name.startswith(OURS) and name not in {CONTENT_TYPE, BASE}:
            raise FileError(errno.EPERM, f"{name} tells what is so")
        if node.detached:
            raise FileError(errno.ENOENT, f"{node.name} has no name any more")

    def _accept_theirs(self, node: Node, path: RemotePath, value: bytes) -> None:
        if value != THEIRS:
            raise self._senseless(path, f"{BASE} can be set to {THEIRS.decode()!r} only")
        if not self._ledger.accept_theirs(path):
            raise self._senseless(path, f"{BASE}: there is no conflict whose other version could be accepted")
        self._log.note("conflict.accepted", "the next save replaces the remote's version of the conflict", path=path)
        self._tree.look_again(node)

    def _senseless(self, path: RemotePath, message: str) -> FileError:
        self._log.note("conflict.refused", message, path=path, level="warning")
        return FileError(errno.EINVAL, f"{path}: {message}")

    def _choose_content_type(self, node: Node, path: RemotePath, value: bytes) -> None:
        """Of what is put from now on, and of what was not tried yet."""
        if node.kind is not Kind.FILE:
            raise FileError(errno.EPERM, f"{path} is no file")
        try:
            chosen = value.decode("ascii")
        except UnicodeDecodeError:
            chosen = ""
        if not _MEDIA_TYPE.fullmatch(chosen):
            raise FileError(errno.EINVAL, f"{chosen[:80]!r} is no media type (RFC 6838), such as text/plain")
        with self._ledger.transaction():
            self._ledger.keep_xattr(path, CONTENT_TYPE, value)
            record = self._ledger.shown(path)
            if node.draft is None and record is not None:
                self._correct(record, chosen)

    def _correct(self, record: Record, chosen: str) -> None:
        op = record.op
        if op.kind is not OpKind.PUT or op.body is None or record.state is not State.PENDING or record.attempted:
            return
        local = self._ledger.node(op.path)
        mtime = op.created_at if local is None or local.mtime is None else local.mtime
        self._ledger.put(None, op.path, op.base, op.body, content_type=chosen, mtime=mtime, still_open=False)
