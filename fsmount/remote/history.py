"""A relayfile server's event log as far as it was told: read on by ``GET /fs/events``, or event by event.

Invariant: nothing after the cursor is passed over without a word: what cannot be told one by one is told as ``None``.
The cursor outlives every error and cancellation, and moves with what was told, in one synchronous stretch.

A server answers a cursor that it does not know with its first events (relayfile-api, section 13), and a server that was
set up anew has a head below ours; both are a reset. Servers built on relayfile's TypeScript core know no `direction`
and give the oldest events for the newest: the end of their log is found by reading through it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import trio

from fsmount.model import Change, ProviderFailed, ProviderSucceeded, RemotePath, Revision, Told
from fsmount.remote.content import digest_of
from fsmount.remote.entries import epoch
from fsmount.wire.relayfile import Event, EventPage

PAGE = 1000
HEAD_EVERY = 5.0
"""Seconds between two looks at the head while nothing comes after the cursor: an emptied log shows in no other way."""
RECENT = 4096
"""Events that are remembered, because they may come by both ways."""
CHANGES = ("file.created", "file.updated", "file.deleted")
PROVIDER: dict[str, type[ProviderFailed | ProviderSucceeded]] = {
    "writeback.failed": ProviderFailed,
    "writeback.succeeded": ProviderSucceeded,
}
NOTICE = "relayfile."
"""How the types of events begin that say only that something changed (the hosted server's `relayfile.changed`)."""
SYSTEM = "system"
_NUMBERED = re.compile(r"evt_(\d{1,18})")
Tell = Callable[[Told | None], None]
Fetch = Callable[[dict[str, str]], Awaitable[EventPage]]


class History:
    """The log of one workspace; ``fetch`` makes the request with these query members."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._cursor: str | None = None
        self._head_due = 0.0
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._looking = trio.Lock()
        self.is_reset: Callable[[], None] = lambda: None
        """Called before what a reset means for the listings is told: known revisions may be other content's now."""

    @property
    def cursor(self) -> str:
        """The last event that was told or passed over; empty where there is none."""
        return self._cursor or ""

    async def look(self, tell: Tell, *, closely: bool = False) -> None:
        """Tells what came since the last time, and None at the start and after a reset. A checkpoint.

        One request where the log goes on from the cursor; the head is asked for where that could hide a reset:
        now and then, and always when looking ``closely``. Raises RemoteError.
        """
        async with self._looking:
            if self._cursor is None:
                self._reset(await self._head(), tell)
            elif not await self._follow(self._cursor, tell) and (closely or trio.current_time() >= self._head_due):
                await self._check(self._cursor, tell)

    def take(self, event: Event, tell: Tell) -> None:
        """An event that came by itself; one that was told already is let go.

        Where telling fails, the next look begins anew: the event would never be told.
        """
        if event.event_id in self._recent:
            return
        if event.event_id:
            self._advance(event.event_id)
        told = _told(event)
        if told is None and not is_notice(event):
            return
        try:
            tell(told)
        except Exception:
            self._cursor = None
            raise

    def begin_anew(self, tell: Tell) -> None:
        """What was missed cannot be known."""
        self._recent.clear()
        tell(None)

    async def _check(self, cursor: str, tell: Tell) -> None:
        """Whether the log still reaches as far as it did."""
        if _ends_before(await self._newest(), cursor):
            self._reset(await self._head(), tell)

    async def _head(self) -> str:
        """The id of the log's last event; empty where there is none."""
        newest = await self._newest()
        if not newest or _is_newest_first(newest):
            return newest[0].event_id if newest else ""
        return await self._end(newest[0].event_id)

    async def _newest(self) -> tuple[Event, ...]:
        """The last two events, the last one first; of a server that knows no direction the first two."""
        page = await self._fetch({"direction": "desc", "limit": "2"})
        self._head_due = trio.current_time() + HEAD_EVERY
        return page.events or ()

    async def _end(self, cursor: str) -> str:
        """The last event, found by reading on from one of the first."""
        while True:
            page = await self._fetch({"cursor": cursor, "limit": str(PAGE)})
            last = page.events[-1].event_id if page.events else cursor
            if last == cursor or page.next_cursor is None:
                return last
            cursor = last

    async def _follow(self, cursor: str, tell: Tell) -> bool:
        """Reads on from the cursor to the end; whether there was anything."""
        before = cursor
        while True:
            after = {"cursor": cursor} if cursor else {}
            page = await self._fetch({**after, "limit": str(PAGE)})
            events = page.events or ()
            if events and _is_known(events[0].event_id, cursor):
                self._reset(await self._head(), tell)
                return True
            for event in _with_one_notice(events):
                self.take(event, tell)
            if events:
                cursor = events[-1].event_id
            if not events or page.next_cursor is None:
                return cursor != before

    def _reset(self, head: str, tell: Tell) -> None:
        if self._cursor:
            self.is_reset()
        self._cursor = None
        self.begin_anew(tell)
        self._cursor = head

    def _advance(self, event_id: str) -> None:
        self._recent[event_id] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        if not self._cursor or not _is_before(event_id, self._cursor):
            self._cursor = event_id


def is_notice(event: Event) -> bool:
    """Whether it says that something changed, and not what."""
    return event.type.startswith(NOTICE)


def _with_one_notice(events: Sequence[Event]) -> list[Event]:
    """The same without all notices but the last one: each would have everything looked at again."""
    last = max((place for place, event in enumerate(events) if is_notice(event)), default=None)
    return [event for place, event in enumerate(events) if place == last or not is_notice(event)]


def _told(event: Event) -> Told | None:
    """What the event says of a file; None for any other event."""
    if not event.path.startswith("/"):
        return None
    if event.type in PROVIDER:
        revision = Revision(event.revision) if event.revision else None
        return PROVIDER[event.type](path=RemotePath(event.path), revision=revision, at=epoch(event.timestamp))
    if event.type not in CHANGES:
        return None
    deleted = event.type == "file.deleted"
    return Change(
        path=RemotePath(event.path),
        revision=None if deleted else Revision(event.revision),
        digest=None if deleted else digest_of(event.content_hash),
        at=epoch(event.timestamp),
        system=event.origin == SYSTEM,
    )


def _number(event_id: str) -> int | None:
    match = _NUMBERED.fullmatch(event_id)
    return int(match[1]) if match else None


def _is_newest_first(events: tuple[Event, ...]) -> bool:
    """Whether the order is surely that; what cannot be compared is taken for the other one."""
    if len(events) < 2:
        return True
    first, second = _number(events[0].event_id), _number(events[1].event_id)
    if first is not None and second is not None:
        return first > second
    return epoch(events[0].timestamp) > epoch(events[1].timestamp)


def _ends_before(newest: tuple[Event, ...], cursor: str) -> bool:
    """Whether a log with these newest events ends before ``cursor``, as far as they tell."""
    head = newest[0].event_id if newest else ""
    return _is_newest_first(newest) and head != cursor and _is_before(head, cursor)


def _is_before(head: str, cursor: str) -> bool:
    """Whether the feed ends before ``cursor``: nothing is left of it, or its head has a smaller number."""
    if not head:
        return True
    ours, theirs = _number(cursor), _number(head)
    return ours is not None and theirs is not None and theirs < ours


def _is_known(first: str, cursor: str) -> bool:
    """Whether an event that should come after ``cursor`` is that one or an earlier one."""
    ours, theirs = _number(cursor), _number(first)
    return first == cursor or (ours is not None and theirs is not None and theirs <= ours)
