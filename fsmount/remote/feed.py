"""relayfile's change feed, by polling ``GET /fs/events``.

Invariant: the cursor and what was fetched but not yet told outlive every error and cancellation, so that the next
``changes()`` goes on where the last one stopped; what cannot be told one by one is told as ``None``.

A server answers a cursor that it does not know with its first events (relayfile-api, section 13), and a server that was
set up anew has a head below ours; both are a reset.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import trio

from fsmount.model import Change, Digest, ProviderFailed, ProviderSucceeded, RemotePath, Revision
from fsmount.remote.entries import epoch
from fsmount.wire.relayfile import Event, EventPage

PAGE = 1000
HEAD_EVERY = 5.0
"""Seconds between two looks at the head while nothing comes after the cursor: an emptied log shows in no other way."""
CHANGES = ("file.created", "file.updated", "file.deleted")
PROVIDER: dict[str, type[ProviderFailed | ProviderSucceeded]] = {
    "writeback.failed": ProviderFailed,
    "writeback.succeeded": ProviderSucceeded,
}
SYSTEM = "system"
_NUMBERED = re.compile(r"evt_(\d{1,18})")
Told = Change | ProviderFailed | ProviderSucceeded
Fetch = Callable[[dict[str, str]], Awaitable[EventPage]]


class Feed(AsyncIterator[Told | None]):
    """The one feed of a remote. ``fetch`` makes the request with these query members; ``poll`` is in seconds."""

    def __init__(self, fetch: Fetch, poll: float) -> None:
        self._fetch = fetch
        self._poll = poll
        self._cursor: str | None = None
        self._looked = False
        self._head_due = 0.0
        self._waiting: deque[Told | None] = deque()
        self._reading = trio.Lock()
        self.looked: Callable[[], None] = lambda: None
        """Called after each request that was answered, whether or not there was anything new."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Told | None:
        """The next change, or None where some may have been missed: at the start and after a reset; waits for one.

        Raises RemoteError, and can be asked again then.
        """
        async with self._reading:
            while not self._waiting:
                if self._looked:
                    await trio.sleep(self._poll)
                self._looked = True
                await self._look()
                self.looked()
            return self._waiting.popleft()

    async def _look(self) -> None:
        """One request where the log goes on from the cursor; the head is asked for where that could hide a reset."""
        if self._cursor is None:
            await self._begin()
        elif not await self._follow(self._cursor) and trio.current_time() >= self._head_due:
            head = await self._head()
            if head != self._cursor and _is_before(head, self._cursor):
                self._reset(head)

    async def _begin(self) -> None:
        self._cursor = await self._head()
        self._waiting.append(None)

    async def _head(self) -> str:
        page = await self._fetch({"direction": "desc", "limit": "1"})
        self._head_due = trio.current_time() + HEAD_EVERY
        return page.events[0].event_id if page.events else ""

    async def _follow(self, cursor: str) -> bool:
        """Reads on from the cursor to the end; whether there was anything."""
        before = cursor
        while True:
            after = {"cursor": cursor} if cursor else {}
            page = await self._fetch({**after, "limit": str(PAGE)})
            events = page.events or ()
            if events and _is_known(events[0].event_id, cursor):
                self._reset(await self._head())
                return True
            self._waiting += [told for event in events if (told := _told(event)) is not None]
            if events:
                self._cursor = cursor = events[-1].event_id
            if not events or page.next_cursor is None:
                return cursor != before

    def _reset(self, head: str) -> None:
        self._waiting.append(None)
        self._cursor = head


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
        digest=Digest(event.content_hash) if event.content_hash and not deleted else None,
        at=epoch(event.timestamp),
        system=event.origin == SYSTEM,
    )


def _number(event_id: str) -> int | None:
    match = _NUMBERED.fullmatch(event_id)
    return int(match[1]) if match else None


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
