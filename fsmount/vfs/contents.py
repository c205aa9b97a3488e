"""Remote bytes at one revision, through the cache.

Invariant: a read never returns bytes of another version than was asked for; and one fetch serves all who wait for it.
"""

from __future__ import annotations

import errno

import trio

from fsmount.connection import Connection
from fsmount.errors import FileError, Refusal, RemoteError, Unreachable
from fsmount.model import Body, Chunk, ConnectionState, Digest
from fsmount.ports import Cache, Draft, EventLog, Remote, Source
from fsmount.vfs.shown import AtRemote

BLOCK = 4 * 1024 * 1024
"""Bytes asked for at once where the remote has ranges."""


class Contents:
    """Reads of remote content. ``bytes_down`` counts what was fetched since the start."""

    def __init__(self, remote: Remote, cache: Cache, connection: Connection, log: EventLog) -> None:
        self._remote = remote
        self._cache = cache
        self._connection = connection
        self._log = log
        self._under_way: dict[tuple[AtRemote, int], _Fetch] = {}
        self.bytes_down = 0

    async def read(self, at: AtRemote, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end of the file. A checkpoint where they are not cached.

        Raises FileError ESTALE when the remote has another version now, or RemoteError.
        """
        found = self._cache.read(at.path, version_of(at), offset, size)
        if found is not None:
            return found
        chunk = await self._fetch(at, offset, size)
        begin = offset - chunk.start
        end = begin + size
        if begin >= 0 and (end <= len(chunk.data) or chunk.start + len(chunk.data) >= chunk.total):
            return chunk.data[begin:end]
        raise FileError(
            errno.EIO,
            f"{at.path}: the remote sent {len(chunk.data)} bytes from {chunk.start}, asked for {size} from {offset}",
        )

    async def size(self, at: AtRemote) -> int:
        """The exact length of that version, fetched where no listing tells it."""
        known = self.known_size(at)
        return known if known is not None else (await self._fetch(at, 0, 1)).total

    def known_size(self, at: AtRemote) -> int | None:
        """The same if it is known already."""
        return self._cache.total(at.path, version_of(at))

    async def copy(self, at: AtRemote, draft: Draft) -> None:
        """Writes the whole version into ``draft``; raises as ``read`` does, and OSError when the disk is full."""
        offset = 0
        while True:
            piece = await self.read(at, offset, BLOCK)
            if piece:
                draft.write(offset, piece)
            offset += len(piece)
            if len(piece) < BLOCK:
                return

    def adopt(self, at: AtRemote, body: Body, source: Source) -> None:
        """Keeps what was just acknowledged; blocks: call it in a thread."""
        self._cache.adopt(at.path, version_of(at), body, source)

    async def _fetch(self, at: AtRemote, offset: int, size: int) -> Chunk:
        ranges = self._remote.capabilities.ranges
        start = offset // BLOCK * BLOCK if ranges else 0
        key = (at, start)
        fetch = self._under_way.get(key)
        if fetch is None:
            fetch = self._under_way[key] = _Fetch()
            try:
                fetch.chunk = await self._ask(at, start, max(BLOCK, offset + size - start))
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
        return await self._fetch(at, offset, size)

    async def _ask(self, at: AtRemote, start: int, length: int) -> Chunk:
        if self._connection.state is ConnectionState.OFFLINE:
            raise Unreachable(f"{at.path}: the remote cannot be reached, and this file is not cached")
        try:
            chunk = await self._remote.read(at.path, at.revision, start, length)
        except (Unreachable, trio.Cancelled):
            # Cancelled by the deadline of the system call: silence, as far as anybody can tell.
            self._connection.suspect()
            raise
        except Refusal as error:
            if error.status in (404, 410):
                message = f"{at.path}: the remote has no revision {at.revision} any more"
                raise FileError(errno.ESTALE, message) from error
            raise
        self._connection.contacted()
        self.bytes_down += len(chunk.data)
        found = AtRemote(at.path, chunk.revision, chunk.digest)
        if chunk.revision != at.revision or not _may_be_same(at.digest, chunk.digest):
            self._cache.store(at.path, version_of(found), chunk)
            raise FileError(errno.ESTALE, f"{at.path}: the remote has {chunk.revision} now, {at.revision} was opened")
        self._cache.store(at.path, version_of(at), chunk)
        return chunk


def version_of(at: AtRemote) -> str:
    """What the cache knows the content by: the revision, and the digest where a listing told it."""
    return at.revision if at.digest is None else f"{at.revision} {at.digest}"


def _may_be_same(one: Digest | None, other: Digest | None) -> bool:
    return one is None or other is None or one == other


class _Fetch:
    """One request and those who wait for it."""

    __slots__ = ("chunk", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.chunk: Chunk | None = None
        self.error: Exception | None = None
