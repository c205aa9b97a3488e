"""relayfile's live feed: one WebSocket at a time (relayfile-api, section 14), by trio-websocket.

Invariant: a connection ends with an error, whatever the server does: the handshake has a deadline and a limit in bytes,
and silence is broken by our own pings. The token travels in the query, where alone the Go server looks for it, and in
the header; no message or exception made here holds it, and none of theirs, which might, leaves this module.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import NoReturn, Protocol
from urllib.parse import quote, urlencode, urlsplit

import h11
import msgspec
import trio
import trio_websocket
import wsproto.utilities
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from fsmount import __version__
from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable, kind_and_place
from fsmount.remote import claims
from fsmount.remote.credentials import TokenSource
from fsmount.remote.decoding import UNREADABLE, decoded, decoded_names
from fsmount.remote.translate import silent, unreachable
from fsmount.wire.relayfile import ErrorBody, Event

LONGEST_HANDSHAKE = 10.0
"""Seconds from the connection to the answer."""
LARGEST_HANDSHAKE = 256 * 1024
LARGEST_MESSAGE = 16 * 1024 * 1024
"""Characters; a frame with 1 MiB of content may have 6 MiB after JSON's escapes."""
PING = 15.0
"""Seconds between two pings. After two of them without a byte the connection counts as dead."""
SLICE = 64 * 1024


class Closed(Unreachable):
    """The connection was open, and is not any more. ``code`` is the WebSocket close code; 1006 says that it was cut."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Frame(Event, frozen=True, kw_only=True):
    """A message of the server. The file's content, which may come along, is passed over in decoding: a reader that
    wants to fill the cache with it would declare ``content``, ``encoding`` and ``inline_content`` here.
    """

    event_id: str = ""


class Listener(Protocol):
    """Whom a connection tells."""

    async def opened(self) -> None:
        """The server has accepted; what it says is received when this returns. May raise RemoteError."""

    def received(self, frame: Frame) -> None:
        """A message; must not block."""

    def alive(self) -> None:
        """The server has answered a ping."""


class Sockets:
    """Connections to ``GET {target}`` of one origin. ``trust`` is for TLS; ``timeout`` and ``ping`` are seconds.

    ``dial`` makes the connection, where it is not to be a socket; ``surprised`` is told of errors that nobody expected.
    """

    def __init__(
        self,
        origin: str,
        target: str,
        tokens: TokenSource,
        *,
        trust: ssl.SSLContext | None,
        timeout: float,
        ping: float = PING,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        surprised: Callable[[str], None] | None = None,
    ) -> None:
        parts = urlsplit(origin)
        self._origin = origin
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if trust else 80)
        self._authority = parts.netloc
        self._target = target
        self._tokens = tokens
        self._trust = trust
        self._timeout = min(timeout, LONGEST_HANDSHAKE)
        self._ping = ping
        self._dial = dial or self._connect
        self._surprised = surprised

    async def listen(self, query: Sequence[tuple[str, str]], listener: Listener) -> NoReturn:
        """One connection, from its handshake to its end, which is told by raising.

        Raises Closed, Unreachable, Refusal (the server's answer in place of an upgrade), InvalidAnswer, and what the
        listener raises. After a 401 the credential is read again and, where it differs, tried once more.
        """
        token = await self._tokens.token()
        try:
            await self._listen(query, listener, token)
        except Refusal as refusal:
            fresh = await self._tokens.renewed(token) if refusal.status == 401 else None
            if fresh is None:
                raise
            await self._listen(query, listener, fresh)

    async def _listen(self, query: Sequence[tuple[str, str]], listener: Listener, token: str) -> NoReturn:
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(self._timeout):
                    stream = _Listened(await self._dial(), self._origin)
                    socket = await self._shake_hands(nursery, stream, query, token)
                try:
                    await listener.opened()
                    nursery.start_soon(self._keep_alive, socket, stream, listener.alive)
                    nursery.start_soon(self._run_out, claims.expiry(token))
                    while True:
                        listener.received(_decoded(await socket.get_message()))
                finally:
                    await trio.aclose_forcefully(stream)
        except BaseExceptionGroup as group:
            raise self._cause(group) from None

    async def _connect(self) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(self._host, self._port)
        if self._trust is None:
            return stream
        return trio.SSLStream(stream, self._trust, server_hostname=self._host, https_compatible=True)

    async def _shake_hands(
        self, nursery: trio.Nursery, stream: _Listened, query: Sequence[tuple[str, str]], token: str
    ) -> WebSocketConnection:
        asked = urlencode([*query, ("token", token)], quote_via=quote, safe="/*")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": f"fsmount/{__version__}"}
        try:
            socket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do
                self._authority,
                f"{self._target}?{asked}",
                extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
                max_message_size=LARGEST_MESSAGE,
                receive_buffer_size=SLICE,
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        stream.is_open()
        return socket

    async def _keep_alive(self, socket: WebSocketConnection, stream: _Listened, alive: Callable[[], None]) -> None:
        while True:
            await trio.sleep(self._ping)
            with trio.move_on_after(self._ping):
                await socket.ping()
                alive()
                continue
            if trio.current_time() - stream.heard_at >= self._ping:
                raise Closed(1006, f"{self._origin} has been silent for {2 * self._ping:g} s")

    async def _run_out(self, expiry: float | None) -> None:
        """Ends the connection with its token: the server would let it be, and the next request be refused."""
        left = inf if expiry is None else expiry - time.time()
        if left > 0:
            await trio.sleep(left)
            raise Closed(1000, "the credential has run out")

    def _cause(self, group: BaseExceptionGroup[BaseException]) -> BaseException:
        """What ended the connection, in our words; a cancellation goes before anything that came with it."""
        cancelled, others = group.split(trio.Cancelled)
        if cancelled is not None:
            return cancelled
        leaves = list(_leaves(others))
        return next((self._translated(leaf) for leaf in leaves if isinstance(leaf, Exception)), leaves[0])

    def _translated(self, error: Exception) -> Exception:
        match error:
            case RemoteError():
                return error
            case ConnectionRejected():
                return self._refusal(error)
            case ConnectionClosed():
                code = error.reason.code if error.reason else 1006
                reason = self._tokens.hides((error.reason and error.reason.reason) or "")
                return Closed(code, f"{self._origin} ended the live feed: {code}{reason and f' {reason}'}")
            case trio.TooSlowError():
                return silent(self._origin, "")
            case OSError() | trio.BrokenResourceError() | trio.ClosedResourceError():
                return unreachable(error, self._origin)
            case wsproto.utilities.ProtocolError() | h11.ProtocolError() | UnicodeError():
                return self._foreign(error)
            case msgspec.DecodeError() | RecursionError():
                return self._foreign(error)
        return self._surprise(error)

    def _foreign(self, error: Exception) -> InvalidAnswer:
        return InvalidAnswer(f"{self._origin} speaks no WebSocket of relayfile's: {type(error).__name__}")

    def _surprise(self, error: Exception) -> InvalidAnswer:
        """One that a library or we ourselves made: it costs the connection, and must cost nothing else."""
        message = f"internal error in the live feed: {kind_and_place(error)}"
        if self._surprised is not None:
            self._surprised(message)
        return InvalidAnswer(message)

    def _refusal(self, rejected: ConnectionRejected) -> Refusal:
        try:
            told = decoded(rejected.body or b"", ErrorBody)
        except UNREADABLE:
            told = ErrorBody()
        return Refusal(rejected.status_code, code=told.code[:100], message=self._tokens.hides(told.message)[:1000])


class _Listened(trio.abc.Stream):
    """A stream that knows when (trio's time) it was heard last.

    During the handshake it takes in only so much, and its end is an error: trio-websocket would wait on.
    """

    def __init__(self, stream: trio.abc.Stream, origin: str) -> None:
        self._stream = stream
        self._origin = origin
        self._allowance = LARGEST_HANDSHAKE
        self._shaking = True
        self.heard_at = trio.current_time()

    def is_open(self) -> None:
        """The handshake is over."""
        self._shaking = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        with self._told_at_once():
            received = await self._stream.receive_some(max_bytes)
        self.heard_at = trio.current_time()
        self._allowance -= len(received)
        if self._shaking and (not received or self._allowance < 0):
            raise Unreachable(f"{self._origin} ended the connection instead of opening the live feed")
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._told_at_once():
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @contextmanager
    def _told_at_once(self) -> Iterator[None]:
        try:
            yield
        except trio.BrokenResourceError as error:
            if self._shaking:
                raise unreachable(error, self._origin) from error
            raise


def _decoded(message: str | bytes) -> Frame:
    """The frame; a name that is no Unicode text is none here either, and must not end the feed of all others."""
    return decoded_names(message.encode() if isinstance(message, str) else message, Frame)


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [] if error is None else [error]
