"""A request's body, as it leaves.

Invariant: no piece takes longer than half the timeout as long as the transfer is not stuck, and of a body on disk no
more than ``PIECE`` bytes are in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import trio

from fsmount.ports import Source

SLOWEST = 16 * 1024
"""Bytes a second below which a transfer counts as stuck."""
PIECE = 512 * 1024
"""Bytes of a body on disk that are read at once, in a thread; no more are sent at once."""
SMALLEST = 4 * 1024
"""Bytes that are sent at once however short the timeout is."""


def size_within(timeout: float) -> int:
    """Bytes to send at once where each piece may take ``timeout`` seconds: httpx bounds a piece, not a body."""
    return min(PIECE, max(SMALLEST, int(SLOWEST * timeout / 2)))


class Pieces(httpx.AsyncByteStream):
    """``body`` in pieces of ``size`` bytes, read from disk as they are sent; ``scope`` is given more time with each.

    No async generator: httpcore leaves off where the server answers early, and trio would complain of one unfinished.
    """

    def __init__(self, body: bytes | Source, size: int, scope: trio.CancelScope) -> None:
        self._source = None if isinstance(body, bytes) else body
        self._read = 0
        self._ready = body if isinstance(body, bytes) else b""
        self._sent = 0
        """Bytes of what is ready."""
        self._size = size
        self._scope = scope

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._sent == len(self._ready) and self._source is not None:
            await self._read_on(self._source)
        piece = self._ready[self._sent : self._sent + self._size]
        if not piece:
            raise StopAsyncIteration
        self._sent += len(piece)
        self._scope.deadline += len(piece) / SLOWEST
        return piece

    async def _read_on(self, source: Source) -> None:
        """Several pieces at once: a thread costs more than a read."""
        self._ready = await trio.to_thread.run_sync(source.read, self._read, PIECE // self._size * self._size)
        self._read += len(self._ready)
        self._sent = 0
