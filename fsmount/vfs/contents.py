"""Remote bytes at one revision, through the cache.

Invariant: a read never returns bytes of another version than was asked for; and one fetch serves all who wait for it.
Of a file that is read in ranges no more than a few blocks are in memory, whatever the cache holds; where the remote has
no ranges, it is one file that the cache does not keep, the one that came last.
"""

from __future__ import annotations

import errno
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import trio
from msgspec import Struct

from fsmount.connection import Connection
from fsmount.errors import FileError, Refusal, RemoteError, Unreachable
from fsmount.model import Body, Chunk, ConnectionState, RemotePath
from fsmount.ports import Cache, Draft, EventLog, Remote, Source
from fsmount.vfs.patience import progressed
from fsmount.vfs.shown import AtRemote

BLOCK = 2 * 1024 * 1024
"""Bytes asked for at once where the remote has ranges. Two are under way for each reader, each for a moment twice in
memory: longer ones would cost more of it than they save.
"""
SUBTREE = 8 * 1024 * 1024
"""Bytes that a subtree may hold to be fetched in one request."""
LONG = 256 * 1024
"""Bytes that are stored in a thread, while the loop serves others."""
HELD = 3 * BLOCK
"""Bytes of lately fetched blocks in memory, for a reader of what the cache does not keep: the one that it reads, the
one ahead, and the one before, of which the kernel may still want some.
"""
WHOLE = 64 * 1024 * 1024
"""Bytes of a file that came whole and is held in memory because the cache does not keep it: the most that any remote
without ranges gives.
"""
READERS = 64
"""Files of which it is remembered where they were read last."""
AHEAD = 4
"""Blocks that may be fetched ahead of their readers at once."""
AGAIN = 1.0
"""Seconds for which a request that failed is answered alike at once."""


class Contents:
    """Reads of remote content. ``bytes_down`` counts what was fetched since the start."""

    def __init__(self, remote: Remote, cache: Cache, connection: Connection, log: EventLog) -> None:
        self._remote = remote
        self._cache = cache
        self._connection = connection
        self._log = log
        self._under_way: dict[tuple[AtRemote, int], _Fetch] = {}
        self._failed: OrderedDict[tuple[AtRemote, int], tuple[float, Exception]] = OrderedDict()
        """What was not had: until when (trio's clock) that is the answer, and why; the oldest first."""
        self._recent = _Recent()
        self._read_last: OrderedDict[AtRemote, int] = OrderedDict()
        self._wanted: list[tuple[AtRemote, int]] = []
        self._ahead = 0
        self._stirred = trio.Event()
        self.bytes_down = 0

    async def run(self) -> None:
        """Fetches the next block of what is read front to back, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._stirred.wait()
                self._stirred = trio.Event()
                wanted, self._wanted = self._wanted, []
                for at, start in wanted:
                    nursery.start_soon(self._fetch_ahead, at, start)

    async def read(self, at: AtRemote, offset: int, size: int, *, anew: bool = True) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end of the file. A checkpoint where they are not here.

        Without ``anew`` a failure that was just met is the answer. Raises FileError ESTALE when the remote has another
        version now, or RemoteError.
        """
        self._look_ahead(at, offset)
        found = self._here(at, offset, size)
        if found is not None:
            return found
        room = BLOCK - offset % BLOCK
        if size > room and self._remote.capabilities.ranges:
            first = await self.read(at, offset, room, anew=anew)
            if len(first) < room:
                return first
            return first + await self.read(at, offset + room, size - room, anew=anew)
        if not anew:
            self._refuse_again((at, self._start(offset)))
        chunk = await self._fetch(at, offset, size)
        found = _part(chunk, offset, size)
        if found is None:
            got = f"{len(chunk.data)} bytes from {chunk.start}"
            raise FileError(errno.EIO, f"{at.path}: the remote sent {got}, asked for {size} from {offset}")
        return found

    def _here(self, at: AtRemote, offset: int, size: int) -> bytes | None:
        found = self._recent.read(at, offset, size)
        return found if found is not None else self._cache.read(at.path, version_of(at), offset, size)

    def _look_ahead(self, at: AtRemote, offset: int) -> None:
        """A reader that comes to a new block from the one before wants the next one soon."""
        block = offset // BLOCK
        last = self._read_last.get(at)
        if last == block or not self._remote.capabilities.ranges:
            return
        self._read_last[at] = block
        self._read_last.move_to_end(at)
        if len(self._read_last) > READERS:
            self._read_last.popitem(last=False)
        start, total = (block + 1) * BLOCK, self.known_size(at)
        if last == block - 1 and total is not None and start < total and self._ahead < AHEAD:
            self._ahead += 1
            self._wanted.append((at, start))
            self._stirred.set()

    async def _fetch_ahead(self, at: AtRemote, start: int) -> None:
        try:
            if self._here(at, start, 1) is None:
                with suppress(RemoteError, FileError):
                    await self._fetch(at, start, 1)
        finally:
            self._ahead -= 1

    async def size(self, at: AtRemote) -> int:
        """The exact length of that version, fetched where no listing tells it."""
        known = self.known_size(at)
        return known if known is not None else (await self._fetch(at, 0, 1)).total

    def known_size(self, at: AtRemote) -> int | None:
        """The same if it is known already."""
        return self._cache.total(at.path, version_of(at))

    def closed(self, at: AtRemote) -> None:
        """Nobody has that version open any more: what the cache keeps of it is no longer in memory too."""
        self._recent.let_go(at)

    async def copy(self, at: AtRemote, draft: Draft) -> None:
        """Writes the whole version into ``draft``; raises as ``read`` does, and OSError when the disk is full.

        Each block that comes is progress: the system call that waits for all of them may take longer for it.
        """
        offset, hasher = 0, hashlib.sha256()
        while True:
            piece = await self.read(at, offset, BLOCK)
            progressed()
            if piece:
                await trio.to_thread.run_sync(_append, draft, offset, piece, hasher)
            offset += len(piece)
            if len(piece) < BLOCK:
                break
        if at.digest not in (None, hasher.hexdigest()):
            raise FileError(errno.EIO, f"{at.path}: what the remote sent is not what its digest says")

    @property
    def reads_below(self) -> bool:
        """Whether ``learn_below`` is worth trying."""
        return self._remote.capabilities.batch_read and self._connection.state is not ConnectionState.OFFLINE

    async def learn_below(self, directory: RemotePath, wanted: Mapping[RemotePath, AtRemote]) -> None:
        """Fetches everything below a directory in one request, if it is not much, and keeps it: sizes and content.

        Raises RemoteError.
        """
        found = await self._remote.read_below(directory, SUBTREE)
        self._connection.contacted()
        if found:
            self.bytes_down += sum(len(chunk.data) for _, chunk in found)
            await trio.to_thread.run_sync(self._keep, found, wanted)

    def _keep(self, found: Sequence[tuple[RemotePath, Chunk]], wanted: Mapping[RemotePath, AtRemote]) -> None:
        for path, chunk in found:
            at = AtRemote(path, chunk.revision, chunk.digest)
            asked = wanted.get(path)
            self._cache.store(path, version_of(asked if asked is not None and _is_same(asked, at) else at), chunk)

    def adopt(self, at: AtRemote, body: Body, source: Source) -> None:
        """Keeps what was just acknowledged; blocks: call it in a thread."""
        self._cache.adopt(at.path, version_of(at), body, source)

    async def _fetch(self, at: AtRemote, offset: int, size: int) -> Chunk:
        start = self._start(offset)
        key = (at, start)
        fetch = self._under_way.get(key)
        if fetch is None:
            fetch = self._under_way[key] = _Fetch()
            began = trio.current_time()
            try:
                fetch.chunk = await self._ask(at, start, max(BLOCK, offset + size - start))
            except (RemoteError, FileError) as error:
                fetch.error = error
                # Offline, it is answered at once anyway, and need not be a moment longer.
                if isinstance(error, RemoteError) and self._connection.state is not ConnectionState.OFFLINE:
                    self._failed[key] = (trio.current_time() + AGAIN, error)
                raise
            except trio.Cancelled:
                if trio.current_time() - began >= AGAIN:
                    silence = FileError(errno.ETIMEDOUT, f"{at.path}: the remote did not answer in time")
                    self._failed[key] = (trio.current_time() + AGAIN, silence)
                raise
            finally:
                del self._under_way[key]
                fetch.done.set()
            await self._store(at, fetch.chunk)
            return fetch.chunk
        await fetch.done.wait()
        if fetch.chunk is not None:
            return fetch.chunk
        if fetch.error is not None:
            raise fetch.error.with_traceback(None)
        return await self._fetch(at, offset, size)

    def _start(self, offset: int) -> int:
        """Where the request begins that brings the byte at ``offset``."""
        return offset // BLOCK * BLOCK if self._remote.capabilities.ranges else 0

    def _refuse_again(self, key: tuple[AtRemote, int]) -> None:
        """Raises what the last request for it ended with, where that was just now.

        The kernel asks for one page at a time, and anew for everybody who waits for it: without this the last of many
        readers would wait as many times as long as a system call may.
        """
        while self._failed and next(iter(self._failed.values()))[0] <= trio.current_time():
            self._failed.popitem(last=False)
        if key in self._failed:
            raise self._failed[key][1].with_traceback(None)

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
        if not _is_same(at, found):
            self._cache.store(at.path, version_of(found), chunk)
            raise FileError(errno.ESTALE, f"{at.path}: the remote has {chunk.revision} now, {at.revision} was opened")
        self._recent.keep(at, chunk)
        return chunk

    async def _store(self, at: AtRemote, chunk: Chunk) -> None:
        """Keeps in the cache what is in memory already. A checkpoint where it is long, which nobody else waits for."""
        if len(chunk.data) < LONG:
            cached = self._cache.store(at.path, version_of(at), chunk)
        else:
            cached = await trio.to_thread.run_sync(self._cache.store, at.path, version_of(at), chunk)
        if cached:
            self._recent.is_cached(at, chunk)


def version_of(at: AtRemote) -> str:
    """What the cache knows the content by: the revision, and the digest where a listing told it."""
    return at.revision if at.digest is None else f"{at.revision} {at.digest}"


def _is_same(one: AtRemote, other: AtRemote) -> bool:
    """Whether both are one content: a revision that was given twice tells by its digest."""
    return one.revision == other.revision and (one.digest is None or other.digest in (None, one.digest))


def _part(chunk: Chunk, offset: int, size: int) -> bytes | None:
    """Those bytes of the file, None where the chunk has not all of them."""
    begin = offset - chunk.start
    end = begin + size
    if begin < 0 or (end > len(chunk.data) and chunk.start + len(chunk.data) < chunk.total):
        return None
    return chunk.data[begin:end]


def _append(draft: Draft, offset: int, piece: bytes, hasher: _Hasher) -> None:
    draft.write(offset, piece)
    hasher.update(piece)


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...


class _Recent:
    """The blocks that were fetched last, as far as ``HELD`` bytes hold them, and the one file that came whole last."""

    def __init__(self) -> None:
        self._whole: tuple[AtRemote, Chunk] | None = None
        self._files: OrderedDict[AtRemote, dict[int, _Block]] = OrderedDict()
        """By where they begin; the file of which one came last is the last one, and the newest block its last."""
        self._bytes = 0

    def read(self, at: AtRemote, offset: int, size: int) -> bytes | None:
        """``size`` bytes, fewer at the end of the file; None where not all of them are in one piece here."""
        block = self._files.get(at, _NO_BLOCKS).get(offset // BLOCK * BLOCK)
        if block is not None:
            return _part(block.chunk, offset, size)
        return _part(self._whole[1], offset, size) if self._whole is not None and self._whole[0] == at else None

    def keep(self, at: AtRemote, chunk: Chunk) -> None:
        """The newest; what is too long to be one of several takes the place of another such one."""
        if len(chunk.data) > BLOCK:
            if len(chunk.data) <= WHOLE:
                self._whole = at, chunk
            return
        self._drop(at, chunk.start)
        self._files.setdefault(at, {})[chunk.start] = _Block(chunk, cached=False)
        self._files.move_to_end(at)
        self._bytes += len(chunk.data)
        while self._bytes > HELD:
            oldest, blocks = next(iter(self._files.items()))
            self._drop(oldest, next(iter(blocks)))

    def is_cached(self, at: AtRemote, chunk: Chunk) -> None:
        """The cache has that one too; what came whole and is long is not held then."""
        if self._whole is not None and self._whole[1] is chunk:
            self._whole = None
        if chunk.start in self._files.get(at, _NO_BLOCKS):
            self._files[at][chunk.start] = _Block(chunk, cached=True)

    def let_go(self, at: AtRemote) -> None:
        """What the cache has as well."""
        for start in [start for start, block in self._files.get(at, _NO_BLOCKS).items() if block.cached]:
            self._drop(at, start)

    def _drop(self, at: AtRemote, start: int) -> None:
        blocks = self._files.get(at, _NO_BLOCKS)
        block = blocks.pop(start, None)
        if block is not None:
            self._bytes -= len(block.chunk.data)
            if not blocks:
                del self._files[at]


class _Block(Struct, frozen=True):
    """A chunk, and whether the cache has it too."""

    chunk: Chunk
    cached: bool


_NO_BLOCKS: dict[int, _Block] = {}


class _Fetch:
    """One request and those who wait for it."""

    __slots__ = ("chunk", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.chunk: Chunk | None = None
        self.error: Exception | None = None
