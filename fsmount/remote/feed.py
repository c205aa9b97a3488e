"""relayfile's change feed: live by WebSocket where that goes, else by polling, and back again.

Invariant: the feed is called live only while a connection is open from which on nothing was missed: after each
handshake the log is read on over HTTP, or, where that is forbidden, everything is told to be looked at again.
The history and the patience with the server outlive every error, so that ``follow`` goes on where it stopped.

    not live ──a socket opens, the log is read on──> live
    live     ──the socket ends──────────────────────> not live: polled each second, a new socket tried with backoff
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import NoReturn, Protocol

import trio

from fsmount.errors import Refusal, RemoteError
from fsmount.model import Feed
from fsmount.remote.history import History, Tell, is_notice
from fsmount.remote.websocket import Closed, Frame, Listener

SHORTEST = 0.1
LONGEST = 30.0
"""Seconds between two tries to open a socket: full jitter up to a bound that doubles."""
STEADY = 5.0
"""Seconds of a connection after which the next one is tried without patience: the polls in its place cost more."""
ELSEWHERE = 300.0
"""Seconds until a server that has no live feed is asked for one again."""
UNVERIFIED = 30.0
"""Seconds between two looks at everything, while a live feed cannot be checked against the log."""
OVERFLOW = 1013
Going = Callable[[Feed], None]
Granted = Callable[[], Awaitable[Sequence[Sequence[str]]]]
Query = Sequence[tuple[str, str]]


class Sockets(Protocol):
    """Where live connections come from: ``websocket.Sockets``."""

    async def listen(self, query: Query, listener: Listener) -> NoReturn: ...


class ChangeFeed:
    """The one feed of a remote. Without ``sockets`` it is polled, every ``poll`` seconds.

    ``root`` are the filters for what the mount shows, none for everything; ``granted`` gives those to try, one set
    after the other, with a credential that may not see everything. ``note`` is told why the feed is not live.
    """

    def __init__(
        self,
        history: History,
        sockets: Sockets | None,
        *,
        poll: float,
        root: Sequence[str] = (),
        granted: Granted | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._history = history
        self._sockets = sockets
        self._poll = poll
        self._root = root
        self._granted = granted
        self._note = note
        self._noted = ""
        self._failures = 0
        self._due = -inf

    async def follow(self, tell: Tell, going: Going) -> None:
        """Tells every change from now on, until it fails by raising RemoteError. One call at a time."""
        while True:
            try:
                await self._history.look(tell)
            except Refusal as refusal:
                if refusal.status != 403 or self._sockets is None or self._granted is None:
                    raise
                await self._follow_unverified(self._sockets, await self._granted(), tell, going, refusal)
            else:
                going(Feed.POLLING)
                await self._follow_verified(tell, going)

    async def _follow_verified(self, tell: Tell, going: Going) -> None:
        """Live or polled, whichever goes, until a poll fails."""
        live = _Verified(self._history, tell, going)
        failed: RemoteError | None = None
        async with trio.open_nursery() as nursery:
            if self._sockets is not None:
                nursery.start_soon(self._stay_live, self._sockets, live)
            try:
                await self._poll_meanwhile(live)
            except RemoteError as error:
                failed = error
                nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _poll_meanwhile(self, live: _Verified) -> None:
        while True:
            await trio.sleep(self._poll)
            await live.due()
            await live.look()

    async def _stay_live(self, sockets: Sockets, live: _Verified) -> None:
        while True:
            await trio.sleep_until(self._due)
            await self._connect(sockets, self._root, live)

    async def _connect(self, sockets: Sockets, filters: Sequence[str], live: _Verified | _Unverified) -> RemoteError:
        """One connection to its end; what ended it, after which the next one is due later or sooner."""
        began, cursor = trio.current_time(), self._history.cursor
        try:
            await sockets.listen([*self._beginning(live), *(("path", filter_) for filter_ in filters)], live)
        except RemoteError as error:
            lasted, moved = trio.current_time() - began, self._history.cursor != cursor
            self._due = trio.current_time() + self._pause(error, lasted, moved=moved)
            self._note_once(f"no live feed: {error.message}")
            return error
        finally:
            live.end()

    def _beginning(self, live: _Verified | _Unverified) -> Query:
        cursor = self._history.cursor
        return [("cursor", cursor)] if cursor else live.without_cursor

    def _pause(self, error: RemoteError, lasted: float, *, moved: bool) -> float:
        """Seconds until a socket is tried again."""
        if isinstance(error, Refusal) and _is_for_good(error.status):
            return ELSEWHERE
        if lasted >= STEADY:
            self._failures, self._noted = 0, ""
        if isinstance(error, Closed) and error.code == OVERFLOW and moved:
            return 0.0
        bound = min(LONGEST, SHORTEST * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return random.uniform(0.0, bound)  # noqa: S311 - spreads the load, guards nothing

    def _note_once(self, why: str) -> None:
        if why != self._noted and self._note is not None:
            self._noted = why
            self._note(why)

    async def _follow_unverified(
        self, sockets: Sockets, granted: Sequence[Sequence[str]], tell: Tell, going: Going, refusal: Refusal
    ) -> None:
        """One connection of a credential that may not read the log. Raises ``refusal`` where there is no live feed."""
        await trio.sleep_until(self._due)
        for filters in granted:
            live = _Unverified(self._history, tell, going)
            error = await self._connect_unverified(sockets, filters, live)
            if live.was_open:
                return
            if not isinstance(error, Refusal):
                raise error
            if error.status != 403:
                raise refusal if _is_for_good(error.status) else error
        raise refusal

    async def _connect_unverified(self, sockets: Sockets, filters: Sequence[str], live: _Unverified) -> RemoteError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.look_again)
            error = await self._connect(sockets, filters, live)
            nursery.cancel_scope.cancel()
        return error


class _Verified:
    """A connection, again and again, of which the log tells what it missed."""

    without_cursor: Query = ()
    """The log was empty: what came since then is among the last hundred events, with which the server begins."""

    def __init__(self, history: History, tell: Tell, going: Going) -> None:
        self._history = history
        self._tell = tell
        self._going = going
        self._open = False
        self._due = trio.Event()
        self._due.set()

    async def due(self) -> None:
        """Returns when the log is to be read: while there is no connection, and after a notice."""
        await self._due.wait()

    async def opened(self) -> None:
        await self._history.look(self._tell, closely=True)
        self._open, self._due = True, trio.Event()
        self._going(Feed.LIVE)

    def received(self, frame: Frame) -> None:
        if is_notice(frame):
            self._due.set()
        else:
            self._history.take(frame, self._tell)
        self._going(Feed.LIVE)

    def alive(self) -> None:
        self._going(Feed.LIVE)

    def end(self) -> None:
        """The connection is over, if there was any."""
        if self._open:
            self._open = False
            self._history.doubt()
            self._due.set()
            self._going(Feed.POLLING)

    async def look(self) -> None:
        """Polls. Raises RemoteError."""
        if self._open:
            self._due = trio.Event()
        await self._history.look(self._tell)
        self._going(Feed.LIVE if self._open else Feed.POLLING)


class _Unverified:
    """One connection that nothing can be compared with: everything is to be looked at again when it opens, and now and
    then.
    """

    without_cursor: Query = (("from", "now"),)

    def __init__(self, history: History, tell: Tell, going: Going) -> None:
        self._history = history
        self._tell = tell
        self._going = going
        self._open = trio.Event()

    @property
    def was_open(self) -> bool:
        """Whether the server has accepted it."""
        return self._open.is_set()

    async def opened(self) -> None:
        self._history.begin_anew(self._tell)
        self._open.set()
        self._going(Feed.LIVE)

    def received(self, frame: Frame) -> None:
        self._history.take(frame, self._tell)
        self._going(Feed.LIVE)

    def alive(self) -> None:
        self._going(Feed.LIVE)

    def end(self) -> None:
        """The connection is over, if there was any."""
        if self.was_open:
            self._going(Feed.NONE)

    async def look_again(self) -> None:
        """While it is open, and until cancelled."""
        await self._open.wait()
        while True:
            await trio.sleep(UNVERIFIED)
            self._tell(None)


def _is_for_good(status: int) -> bool:
    """Whether an answer in place of an upgrade says that there is no live feed, and not that there is none just now."""
    return status == 501 or (status < 500 and status not in {401, 403, 408, 425, 429})
