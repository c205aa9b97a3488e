"""The live feed, `GET /fs/ws`: events over a WebSocket in the order of the log (relayfile-api, section 14).

Invariant: the log in the store is the queue. A socket holds no event but those that it is sending, so a reader that is
slow costs neither memory nor anybody's time; catch-up and live events are one sequence without a gap or a repetition.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from time import time_ns

import msgspec
import trio
from wsproto import WSConnection

from fsmount.server.messages import Answer, Request
from fsmount.server.records import StoredEvent
from fsmount.server.routes import event_number
from fsmount.server.rules import Ending, Manner, Rules
from fsmount.server.store import Store, rfc3339
from fsmount.server.stream import SLICE, Gone
from fsmount.server.websocket import Socket, handshake
from fsmount.wire.relayfile import ClientMessage, FeedMessage

RECENT = 100
"""Events of the past for a client that does not say where to begin."""
UNDELIVERED = 4096
"""Events that may wait for one client, besides those that were there when it came."""
INLINE = 1024 * 1024
"""Bytes of stored content that go along with an event."""
PAGE = 100
LOOK = 0.1
"""Seconds between two looks at the rules while a feed is open."""
LINGER = 2.0
"""Seconds for the client's part of the closing handshake."""
PARTING = 0.3
"""Seconds in which a server that stops says so."""
OVERFLOW = 1013
INTERNAL = 1011
GOING_AWAY = 1001

_log = logging.getLogger("fsmount.server")


class Live:
    """The feeds of all workspaces. A change of the store wakes every open socket, which then looks for itself."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self._store = store
        self._rules = rules
        self._news = trio.Event()
        store.watch(self._ring)

    def accept(self, request: Request, workspace: str) -> Answer:
        """The answer that makes a socket of the connection. Raises Rejected where it was no good handshake."""
        frames, accepted = handshake(request)
        head = self._store.head(workspace)
        feed = _Feed(self, self._store, workspace, _filters(request), self._start(request, workspace, head), head)

        async def switch(stream: trio.abc.Stream, trailing: bytes) -> None:
            await feed.run(stream, frames, accepted, trailing)

        return Answer(status=101, switch=switch)

    def _start(self, request: Request, workspace: str, head: int) -> int:
        """The number after which events are told; an unknown cursor is told of nothing that was before."""
        cursor = request.query.get("cursor", "").strip()
        if cursor:
            known = event_number(self._store, workspace, cursor)
            return head if known is None else known
        if request.query.get("from", "").strip().lower() == "now":
            return head
        return self._store.head(workspace, back=RECENT)

    def manner(self) -> Manner:
        """What the rules say now of an open feed."""
        return self._rules.standing("EVENTS", "/")

    async def news(self) -> None:
        """Returns when the store changed, or when it is time to look at the rules."""
        with trio.move_on_after(LOOK if self._rules.given else inf):
            await self._news.wait()

    def _ring(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


class _Feed:
    """One socket's way through the log of one workspace, from `start` on; `head` was the newest event by then."""

    def __init__(
        self, live: Live, store: Store, workspace: str, filters: Sequence[Sequence[str]], start: int, head: int
    ) -> None:
        self._live = live
        self._store = store
        self._workspace = workspace
        self._filters = filters
        self._told = start
        self._head = head

    async def run(self, stream: trio.abc.Stream, frames: WSConnection, accepted: bytes, trailing: bytes) -> None:
        """Until the client has enough, is too slow or breaks a rule, or the server stops. Quiet whatever it does."""
        socket = Socket(stream, frames)
        try:
            await self._serve(socket, accepted, trailing)
        except Exception as error:  # noqa: BLE001  one feed's trouble must not end the others
            _log.error("internal error at a feed: %r", error, exc_info=_log.isEnabledFor(logging.DEBUG))
            await _part(socket, INTERNAL, "internal error")
        except BaseException:
            await _part(socket, GOING_AWAY, "the server stops")
            raise

    async def _serve(self, socket: Socket, accepted: bytes, trailing: bytes) -> None:
        async with trio.open_nursery() as nursery:
            with suppress(Gone):
                await socket.greet(accepted, trailing)
                nursery.start_soon(_listen, socket, nursery.cancel_scope)
                if await self._tell(socket):
                    # The client's own close, which ends the listening, is waited for: else it might lose ours.
                    nursery.cancel_scope.deadline = trio.current_time() + LINGER
                    return
            nursery.cancel_scope.cancel()

    async def _tell(self, socket: Socket) -> bool:
        """Sends what comes; False when the connection is to be cut, True when it was closed with a word."""
        while True:
            manner = self._live.manner()
            if manner.status is not None or manner.ending in {Ending.REFUSE, Ending.DROP}:
                return False
            socket.mute = manner.ending is Ending.HANG
            if not socket.mute:
                if self._store.has_more_events(self._workspace, max(self._told, self._head), UNDELIVERED):
                    await socket.close(OVERFLOW, "event stream overflow; reconnect from cursor")
                    return True
                if await self._page(socket):
                    continue
            await self._live.news()

    async def _page(self, socket: Socket) -> bool:
        """Some events at one go, few where they bring much content; whether there were any. No checkpoint where not."""
        found = self._store.events(self._workspace, after=self._told, newest_first=False, provider=None, limit=PAGE)
        if not found:
            # At once: of a change between this look and the caller's wait for news nobody would hear.
            return False
        messages: list[str] = []
        size = 0
        for event in found:
            self._told = event.number
            if self._is_wanted(event.path):
                messages.append(self._message(event))
                size += len(messages[-1])
            if size > SLICE:
                break
        await socket.send(*messages)
        return True

    def _is_wanted(self, path: str) -> bool:
        if not self._filters:
            return True
        segments = path.strip("/").split("/")
        return bool(path) and any(_matches(filter_, segments) for filter_ in self._filters)

    def _message(self, event: StoredEvent) -> str:
        inline = None
        if event.type in {"file.created", "file.updated"}:
            inline = self._store.inline(self._workspace, event.path, event.revision, INLINE)
        message = FeedMessage(
            event_id=f"evt_{event.number}",
            type=event.type,
            path=event.path or None,
            revision=event.revision or None,
            content_hash=event.digest,
            content_type=inline.content_type if inline else None,
            content=(inline.content or None) if inline else None,
            encoding="base64" if inline and inline.encoding == "base64" else None,
            inline_content=True if inline else None,
            origin=event.origin,
            provider=event.provider or None,
            correlation_id=event.correlation_id or None,
            timestamp=event.at,
        )
        return msgspec.json.encode(message).decode()


async def _listen(socket: Socket, scope: trio.CancelScope) -> None:
    """Answers the client until it closes, which ends the feed."""
    with suppress(Gone):
        while (said := await socket.receive()) is not None:
            if _is_ping(said) and not socket.mute:
                pong = FeedMessage(type="pong", timestamp=rfc3339(time_ns()))
                await socket.send(msgspec.json.encode(pong).decode())
    scope.cancel()


async def _part(socket: Socket, code: int, reason: str) -> None:
    """A last word, if the client takes it at once."""
    with trio.move_on_after(PARTING, shield=True), suppress(Gone):
        await socket.close(code, reason)
        while await socket.receive() is not None:
            pass


def _is_ping(said: str) -> bool:
    try:
        return msgspec.json.decode(said, type=ClientMessage).type.strip().lower() == "ping"
    except (msgspec.DecodeError, RecursionError):
        return False


def _filters(request: Request) -> list[list[str]]:
    return [value.strip().strip("/").split("/") for value in request.every("path") if value.strip()]


def _matches(filter_: Sequence[str], segments: Sequence[str]) -> bool:
    """Segment by segment: `*` is any one, and `**` at the end is the directory itself and all below it."""
    open_ended = filter_[-1] == "**"
    fixed = filter_[:-1] if open_ended else filter_
    if len(segments) < len(fixed) or (len(segments) > len(fixed) and not open_ended):
        return False
    return all(wanted in {"*", segment} for wanted, segment in zip(fixed, segments, strict=False))
