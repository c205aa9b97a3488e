"""The three versions of a conflict, as far as they are known on this disk.

Invariant: a version is shown only while all its bytes are here; nothing is fetched.
"""

from __future__ import annotations

import errno

from fsmount.errors import FileError
from fsmount.model import Base, Body, OpId, Reason, Record, RemotePath, State
from fsmount.ports import Cache, Journal, Source, Spool
from fsmount.vfs.contents import version_of
from fsmount.vfs.control.opened import Memory, size_of
from fsmount.vfs.shown import AtRemote

BASE, MINE, THEIRS = VERSIONS = ("base", "mine", "theirs")
_REASONS = (Reason.CONFLICT, Reason.REMOTE_DELETED)
_LARGEST_BASE = 16 << 20
"""Bytes of a base that are shown: whether the cache still holds all of it is known by reading it."""


class Conflicts:
    """Dead letters that another version at the remote stands against."""

    def __init__(self, journal: Journal, spool: Spool, cache: Cache) -> None:
        self._journal = journal
        self._spool = spool
        self._cache = cache

    def count(self) -> int:
        """How many there are."""
        by_reason = self._journal.dead_by_reason()
        return sum(by_reason.get(reason, 0) for reason in _REASONS)

    def op_ids(self) -> list[OpId]:
        """The ops, oldest first."""
        return self._journal.op_ids(State.DEAD, reasons=_REASONS)

    def versions(self, record: Record) -> list[str]:
        """Those of the three that are known."""
        return [version for version in VERSIONS if self.size(record, version) is not None]

    def size(self, record: Record, version: str) -> int | None:
        """The exact length of a version; None where it is not known."""
        if version == BASE:
            base = self._base(record)
            return None if base is None else len(base)
        body = self.body(record, version)
        return None if body is None else size_of(self._spool, body)

    def body(self, record: Record, version: str) -> Body | None:
        """What the spool holds of a version."""
        if version == MINE:
            return record.op.body
        return record.theirs.body if version == THEIRS and record.theirs is not None else None

    def base(self, record: Record) -> Source:
        """The bytes of ``base``; raises FileError ENOENT where they are not known any more."""
        base = self._base(record)
        if base is None:
            raise FileError(errno.ENOENT)
        return Memory(base)

    def _base(self, record: Record) -> bytes | None:
        path, base = _made_from(record)
        if base.revision is None:
            return None
        version = version_of(AtRemote(path, base.revision, base.digest))
        total = self._cache.total(path, version)
        if total is None or total > _LARGEST_BASE:
            return None
        content = self._cache.read(path, version, 0, total)
        return content if content is not None and len(content) == total else None


def is_conflict(record: Record) -> bool:
    """Whether ``conflict/`` has the op."""
    return record.malformed is None and record.state is State.DEAD and record.reason in _REASONS


def _made_from(record: Record) -> tuple[RemotePath, Base]:
    """Which version of which path the failed request stood on: a move's new name comes first, then its old one."""
    op = record.op
    return (op.path, op.base) if op.step else (op.target, op.target_base)
