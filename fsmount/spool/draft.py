"""A body that is being written, and its digest as it grows.

Invariant: a digest that is told is that of the bytes in the file: as soon as a byte that was hashed may have changed,
there is none until sealing reads all of it.

Threads: ``write`` and ``truncate`` belong to one thread; ``body``, ``hashed`` and ``sync`` may run beside them in
others. Nobody closes a draft while another thread works on it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from typing import Protocol

from fsmount.model import Body, Digest, DraftId
from fsmount.spool.files import PIECE, fsync, write_all
from fsmount.spool.room import Room

_DIRECT = 64 * 1024
"""Appends up to this long are hashed at once, from memory; longer ones are read back when the digest is asked for."""


class Shelf(Protocol):
    """What a draft asks of the spool that holds it."""

    @property
    def room(self) -> Room: ...
    @property
    def drafts(self) -> str: ...
    def expect_sync(self, draft: DraftFile) -> bool: ...
    def sync_body(self, digest: Digest) -> None: ...
    def closed(self, draft: DraftFile) -> None: ...


class DraftFile:
    """See ``Draft`` in ports. One object a draft, shared by all handles of the file."""

    def __init__(self, shelf: Shelf, draft_id: DraftId, fd: int, size: int) -> None:
        self._shelf = shelf
        self._draft_id = draft_id
        self._fd = fd
        self._size = size
        self._left_behind = 0
        self._running = RunningDigest()
        self.frozen = False
        """Sealing has begun: nothing may be written any more."""
        self.sealed: Digest | None = None
        """The name of the body that this draft has become."""
        self.unlinked = False
        """No name leads to its bytes any more: they are given back when it closes."""

    @property
    def draft_id(self) -> DraftId:
        """The name it was made with; stays when it is sealed."""
        return self._draft_id

    @property
    def size(self) -> int:
        """Its present length; no system call."""
        return self._size

    @property
    def body(self) -> Body:
        """Its present length and, if it was written front to back, its digest.

        Hashes what came since the last call: call it in a thread where that may be long. Raises OSError (EIO).
        """
        if self.sealed is not None:
            return Body(size=self._size, digest=self.sealed)
        running, size = self._running, self._size
        digest = running.advance(self._fd, size)
        return Body(size=size, digest=digest if running is self._running else None, draft=self._draft_id)

    def hashed(self) -> Body:
        """``body``, where the digest was lost after reading all of it again; None is told of what is being written.

        Blocks; raises OSError.
        """
        if self.body.digest is None:
            self._running = RunningDigest()
        return self.body

    def read(self, offset: int, size: int) -> bytes:
        """A pread; shorter only at the end. Works on after sealing and after removal."""
        return os.pread(self._fd, max(0, min(size, self._size - offset)), offset)

    def write(self, offset: int, content: bytes) -> int:
        """Writes all of ``content`` or raises OSError: EDQUOT at the spool's limit, ENOSPC.

        What a refused append has left behind is no part of it. RuntimeError once sealing has begun.
        """
        self._refuse_if_frozen()
        self._cut()
        before, end = self._size, offset + len(content)
        growth = max(0, end - before)
        if growth:
            self._shelf.room.take(growth)
        try:
            write_all(self._fd, offset, content)
        except OSError:
            self._running.touched(offset)
            if growth:
                self._left_behind = max(0, os.fstat(self._fd).st_size - before)
                self._shelf.room.give(growth - self._left_behind)
                with suppress(OSError):
                    self._cut()
            raise
        self._size = max(before, end)
        self._running.written(offset, content)
        return len(content)

    def truncate(self, size: int) -> None:
        """Cuts, or lengthens by zeros; raises OSError: EDQUOT at the spool's limit. RuntimeError as ``write``."""
        self._refuse_if_frozen()
        self._cut()
        growth = size - self._size
        if growth > 0:
            self._shelf.room.take(growth, allocated=False)
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._shelf.room.give(max(0, growth))
            raise
        self._shelf.room.give(max(0, -growth))
        self._size = size
        if size == 0:
            self._running = RunningDigest()
        else:
            self._running.touched(size)

    def _cut(self) -> None:
        """Removes what a refused write has left behind the end; where a quota is used up, that may be refused too."""
        if self._left_behind:
            os.ftruncate(self._fd, self._size)
            self._shelf.room.give(self._left_behind)
            self._left_behind = 0

    def sync(self) -> None:
        """Makes the bytes, and the name that holds them by now, survive power loss. Blocks; raises OSError."""
        if self._shelf.expect_sync(self):
            os.fsync(self._fd)
            fsync(self._shelf.drafts)
        if self.sealed is not None:
            self._shelf.sync_body(self.sealed)

    def close(self) -> None:
        """Gives the descriptor back; the draft stays on disk. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._shelf.closed(self)

    def _refuse_if_frozen(self) -> None:
        if self.frozen:
            raise RuntimeError(f"draft {self._draft_id} is sealed: a body never changes")


class RunningDigest:
    """The sha256 of a draft from its first byte on, as long as no hashed byte changes.

    The writer reports a change after making it; the hasher raises ``_reach`` before it reads. So either the hasher
    reads the new bytes, or the writer sees that it touched hashed ones.
    """

    __slots__ = ("_hashed", "_hasher", "_lock", "_lost", "_reach")

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._reach = 0
        self._lost = False
        self._lock = threading.Lock()

    def touched(self, offset: int) -> None:
        """Bytes from ``offset`` on have changed."""
        if offset < self._reach:
            self._lost = True

    def written(self, offset: int, content: bytes) -> None:
        """``content`` stands at ``offset`` now."""
        if offset < self._reach:
            self._lost = True
        elif offset == self._hashed and len(content) <= _DIRECT and self._lock.acquire(blocking=False):
            try:
                self._take(content)
            finally:
                self._lock.release()

    def advance(self, fd: int, size: int) -> Digest | None:
        """The digest of the first ``size`` bytes, or None if only reading all of them again could tell it."""
        with self._lock:
            while self._hashed < size and not self._lost:
                length = min(PIECE, size - self._hashed)
                self._reach = self._hashed + length
                content = os.pread(fd, length, self._hashed)
                if len(content) < length:
                    self._lost = True
                else:
                    self._take(content)
            return None if self._lost or self._hashed != size else Digest(self._hasher.hexdigest())

    def _take(self, content: bytes) -> None:
        self._hashed += len(content)
        self._reach = max(self._reach, self._hashed)
        self._hasher.update(content)
