"""Remote bytes at one revision, through the cache.

Invariant: a read never returns bytes of another revision than was asked for; and one fetch serves all who wait for it.
"""

from __future__ import annotations

import errno

import trio

from fsmount.connection import Connection
from fsmount.errors import FileError, Refusal, RemoteError, Unreachable
from fsmount.model import Chunk, ConnectionState, RemotePath, Revision
from fsmount.ports import Cache, Draft, EventLog, Remote

BLOCK = 4 * 1024 * 1024
"""Bytes asked for at once where the remote has ranges."""


class Contents:
    """Reads of remote content. ``bytes_down`` counts what was fetched since the start."""

    def __init__(self, remote: Remote, cache: Cache, connection: Connection, log: EventLog) -> None:
        self._remote = remote
        self._cache = cache
        self._connection = connection
        self._log = log
        self._under_way: dict[tuple[RemotePath, Revision, int], _Fetch] = {}
        self.bytes_down = 0

    def cached(self, path: RemotePath, revision: Revision, offset: int, size: int) -> bytes | None:
        """The bytes if they need no request."""
        return self._cache.read(path, revision, offset, size)

    async def read(self, path: RemotePath, revision: Revision, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end of the file. A checkpoint where they are not cached.

        Raises FileError ESTALE when the remote has another revision now, or RemoteError.
        """
        found = self._cache.read(path, revision, offset, size)
        if found is not None:
            return found
        chunk = await self._fetch(path, revision, offset, size)
        begin = offset - chunk.start
        end = begin + size
        if begin >= 0 and (end <= len(chunk.data) or chunk.start + len(chunk.data) >= chunk.total):
            return chunk.data[begin:end]
        raise FileError(
            errno.EIO,
            f"{path}: the remote sent {len(chunk.data)} bytes from {chunk.start}, asked for {size} from {offset}",
        )

    async def size(self, path: RemotePath, revision: Revision) -> int:
        """The exact length of that revision, fetched where no listing tells it."""
        known = self._cache.total(path, revision)
        return known if known is not None else (await self._fetch(path, revision, 0, 1)).total

    def known_size(self, path: RemotePath, revision: Revision) -> int | None:
        """The same if it is known already."""
        return self._cache.total(path, revision)

    async def copy(self, path: RemotePath, revision: Revision, draft: Draft) -> None:
        """Writes the whole revision into ``draft``; raises as ``read`` does, and OSError when the disk is full."""
        offset = 0
        while True:
            piece = await self.read(path, revision, offset, BLOCK)
            if piece:
                draft.write(offset, piece)
            offset += len(piece)
            if len(piece) < BLOCK:
                return

    async def _fetch(self, path: RemotePath, revision: Revision, offset: int, size: int) -> Chunk:
        ranges = self._remote.capabilities.ranges
        start = offset // BLOCK * BLOCK if ranges else 0
        key = (path, revision, start)
        fetch = self._under_way.get(key)
        if fetch is None:
            fetch = self._under_way[key] = _Fetch()
            try:
                fetch.chunk = await self._ask(path, revision, start, max(BLOCK, offset + size - start))
            except (RemoteError, FileError) as error:
                fetch.error = error
                raise
            finally:
                del self._under_way[key]
                fetch.done.set()
            return fetch.chunk
        await fetch.done.wait()
        if fetch.chunk is not None:
            return fetch.chunk
        if fetch.error is not None:
            raise fetch.error
        return await self._fetch(path, revision, offset, size)

    async def _ask(self, path: RemotePath, revision: Revision, start: int, length: int) -> Chunk:
        if self._connection.state is ConnectionState.OFFLINE:
            raise Unreachable(f"{path}: the remote cannot be reached, and this file is not cached")
        try:
            chunk = await self._remote.read(path, revision, start, length)
        except (Unreachable, trio.Cancelled):
            # Cancelled by the deadline of the system call: silence, as far as anybody can tell.
            self._connection.suspect()
            raise
        except Refusal as error:
            if error.status in (404, 410):
                raise FileError(errno.ESTALE, f"{path}: the remote has no revision {revision} any more") from error
            raise
        self._connection.contacted()
        self.bytes_down += len(chunk.data)
        self._cache.store(path, chunk.revision, chunk)
        if chunk.revision != revision:
            raise FileError(errno.ESTALE, f"{path}: the remote has {chunk.revision} now, {revision} was opened")
        return chunk


class _Fetch:
    """One request and those who wait for it."""

    __slots__ = ("chunk", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.chunk: Chunk | None = None
        self.error: Exception | None = None
