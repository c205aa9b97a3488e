"""The feed misses nothing between calls and says so when it might have."""

from __future__ import annotations

import pytest
import trio

from fsmount.errors import RemoteError, Unreachable
from fsmount.model import Change, ProviderFailed, ProviderSucceeded, RemotePath, Revision
from fsmount.remote.feed import Feed
from fsmount.wire.relayfile import Event, EventPage


class Log:
    """The events of a server; ``fetch`` answers as relayfile does, an unknown cursor from the beginning."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: RemoteError | None = None
        self.page = 1000
        self.first = 1
        self.requests = 0

    def add(self, path: str, kind: str = "file.updated", **members: str) -> None:
        number = self.first + len(self.events)
        event = {"revision": f"rev_{number}", "content_hash": "ab", "timestamp": "1970-01-01T00:00:09Z", **members}
        self.events.append(Event(event_id=f"evt_{number}", type=kind, path=path, **event))

    async def fetch(self, query: dict[str, str]) -> EventPage:
        await trio.lowlevel.checkpoint()
        self.requests += 1
        if self.error is not None:
            raise self.error
        if query.get("direction") == "desc":
            return EventPage(events=tuple(self.events[-1:]))
        ids = [event.event_id for event in self.events]
        start = ids.index(query["cursor"]) + 1 if query.get("cursor") in ids else 0
        page = tuple(self.events[start : start + min(self.page, int(query["limit"]))])
        more = start + len(page) < len(self.events)
        return EventPage(events=page, next_cursor=page[-1].event_id if more else None)


async def _quiet(feed: Feed) -> None:
    """Looks a while (of virtual time) and finds nothing."""
    with trio.move_on_after(30) as scope:
        raise AssertionError(await anext(feed))
    assert scope.cancelled_caught


async def _paths(feed: Feed, count: int) -> list[RemotePath | None]:
    with trio.fail_after(60):
        changes = [await anext(feed) for _ in range(count)]
    return [None if change is None else change.path for change in changes]


async def _followed() -> tuple[Log, Feed]:
    """A feed that stands at the end of a log with three events."""
    log = Log()
    for path in ("/1", "/2", "/3"):
        log.add(path)
    feed = Feed(log.fetch, 1.0)
    assert await anext(feed) is None
    await _quiet(feed)
    return log, feed


async def test_changes_come_in_order_over_pages(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    log.page = 2
    for number in range(5):
        log.add(f"/new{number}")
    assert await _paths(feed, 5) == [f"/new{number}" for number in range(5)]
    await _quiet(feed)


async def test_what_a_change_says(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    log.add("/a", "file.created")
    log.add("/a", "file.deleted")
    assert await anext(feed) == Change(path="/a", revision="rev_4", digest="ab", at=9.0)  # type: ignore[arg-type]
    assert await anext(feed) == Change(path="/a", revision=None, at=9.0)  # type: ignore[arg-type]


async def test_other_events_are_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    for kind in ("sync.error", "sync.stale", "directory.created", "file.invented"):
        log.add("/a", kind)
    log.add("", "file.updated")
    await _quiet(feed)
    log.add("/b")
    assert await _paths(feed, 1) == ["/b"]


@pytest.mark.parametrize(("kind", "said"), [("failed", ProviderFailed), ("succeeded", ProviderSucceeded)])
async def test_what_a_provider_did_is_told(
    autojump_clock: trio.testing.MockClock, kind: str, said: type[ProviderFailed | ProviderSucceeded]
) -> None:
    log, feed = await _followed()
    log.add("/a", f"writeback.{kind}")
    assert await anext(feed) == said(path=RemotePath("/a"), revision=Revision("rev_4"), at=9.0)


async def test_an_error_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    log.add("/a")
    log.error = Unreachable("gone")
    with pytest.raises(Unreachable):
        await anext(feed)
    log.add("/b")
    log.error = None
    assert await _paths(feed, 2) == ["/a", "/b"]


async def test_a_reader_that_is_cancelled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    for path in ("/a", "/b"):
        log.add(path)
    assert await _paths(feed, 1) == ["/a"]
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(feed)
    assert await _paths(feed, 1) == ["/b"]


@pytest.mark.parametrize("left", [0, 2])
async def test_a_head_below_ours_is_a_reset(autojump_clock: trio.testing.MockClock, left: int) -> None:
    log, feed = await _followed()
    del log.events[left:]
    assert await _paths(feed, 1) == [None]
    await _quiet(feed)
    log.add("/after")
    assert await _paths(feed, 1) == ["/after"]


async def test_a_cursor_that_is_not_known_is_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    log.events = [event for event in log.events if event.event_id != "evt_3"]
    log.first = 2
    log.add("/4")
    assert log.events[-1].event_id == "evt_4"
    assert await _paths(feed, 1) == [None]
    log.add("/5")
    assert await _paths(feed, 1) == ["/5"]


async def test_an_empty_log_is_followed_from_its_beginning(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    feed = Feed(log.fetch, 1.0)
    assert await anext(feed) is None
    await _quiet(feed)
    log.add("/first")
    assert await _paths(feed, 1) == ["/first"]


async def test_news_cost_one_request_a_look(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    before = log.requests
    for number in range(20):
        log.add(f"/{number}")
        assert await _paths(feed, 1) == [f"/{number}"]
    assert log.requests - before == 20


async def test_quiet_looks_seldom_ask_for_the_head(autojump_clock: trio.testing.MockClock) -> None:
    log, feed = await _followed()
    before = log.requests
    await _quiet(feed)
    assert log.requests - before <= 36
