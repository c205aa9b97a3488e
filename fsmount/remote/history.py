"""A relayfile server's event log as far as it was told: read on by ``GET /fs/events``, or event by event.

Invariant: nothing after the cursor is passed over without a word: what cannot be told one by one is told as ``None``.
The cursor outlives every error and cancellation, and moves with what was told, in one synchronous stretch.

A server answers a cursor that it does not know with its first events (relayfile-api, section 13), a server that was set
up anew has a head below ours, and one that was restored and worked with since has another event at our cursor: all are
resets. Servers built on relayfile's TypeScript core know no `direction` and give the oldest events for the newest: the
end of their log is found by reading through it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import trio

from fsmount.errors import RemoteError
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
        self._last: tuple[Event, ...] = ()
        """The event at the cursor, and before it the one from which on it is found again."""
        self._doubtful = False
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
            self._doubtful = self._doubtful or closely
            try:
                if self._cursor is None or not await self._goes_on(self._cursor):
                    self._reset(await self._ending(), tell)
                elif not await self._follow(self._cursor, tell) and (closely or trio.current_time() >= self._head_due):
                    await self._check(self._cursor, tell)
            except RemoteError:
                self.doubt()
                raise

    def doubt(self) -> None:
        """The server may have been away: whether it is the one that it was is looked at before its log is read on."""
        self._doubtful = True

    def take(self, event: Event, tell: Tell) -> None:
        """An event that came by itself; one that was told already is let go.

        Where telling fails, the next look begins anew: the event would never be told.
        """
        if event.event_id in self._recent:
            return
        if event.event_id:
            self._advance(event)
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
        self._last = ()
        tell(None)

    async def _goes_on(self, cursor: str) -> bool:
        """Whether the cursor still names the event that it did, where that was in doubt and is known."""
        if self._doubtful and len(self._last) == 2 and self._last[1].event_id == cursor:
            page = await self._fetch({"cursor": self._last[0].event_id, "limit": "1"})
            if page.events and not _is_same(page.events[0], self._last[1]):
                return False
        self._doubtful = False
        return True

    async def _check(self, cursor: str, tell: Tell) -> None:
        """Whether the log still reaches as far as it did."""
        if _ends_before(await self._newest(), cursor):
            self._reset(await self._ending(), tell)

    async def _ending(self) -> tuple[Event, ...]:
        """The log's last two events, fewer where it has fewer."""
        newest = await self._newest()
        return newest[1::-1] if _is_newest_first(newest) else await self._end(newest[0])

    async def _newest(self) -> tuple[Event, ...]:
        """The last two events, the last one first; of a server that knows no direction the first two."""
        page = await self._fetch({"direction": "desc", "limit": "2"})
        self._head_due = trio.current_time() + HEAD_EVERY
        return page.events or ()

    async def _end(self, known: Event) -> tuple[Event, ...]:
        """The same, found by reading on from one of the first."""
        last: tuple[Event, ...] = (known,)
        while True:
            page = await self._fetch({"cursor": last[-1].event_id, "limit": str(PAGE)})
            last = (*last, *(page.events or ()))[-2:]
            if not page.events or page.next_cursor is None:
                return last

    async def _follow(self, cursor: str, tell: Tell) -> bool:
        """Reads on from the cursor to the end; whether there was anything."""
        before = cursor
        while True:
            after = {"cursor": cursor} if cursor else {}
            page = await self._fetch({**after, "limit": str(PAGE)})
            events = page.events or ()
            if events and _is_known(events[0].event_id, cursor):
                self._reset(await self._ending(), tell)
                return True
            for event in _with_one_notice(events):
                self.take(event, tell)
            if events:
                cursor = events[-1].event_id
            if not events or page.next_cursor is None:
                return cursor != before

    def _reset(self, last: tuple[Event, ...], tell: Tell) -> None:
        if self._cursor:
            self.is_reset()
        self._cursor = None
        self.begin_anew(tell)
        self._cursor, self._last, self._doubtful = last[-1].event_id if last else "", last, False

    def _advance(self, event: Event) -> None:
        self._recent[event.event_id] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        if not self._cursor or not _is_before(event.event_id, self._cursor):
            self._cursor = event.event_id
            self._last = (*self._last[-1:], event)


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


def _is_same(event: Event, other: Event) -> bool:
    """Whether both are one event; it may have come by the log and by itself, which need not tell the same of it."""
    if event.event_id != other.event_id:
        return False
    pairs = [(event.path, other.path), (event.revision, other.revision)]
    return all(not one or not two or one == two for one, two in pairs) and (
        abs(epoch(event.timestamp) - epoch(other.timestamp)) <= 1 or not event.timestamp or not other.timestamp
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
